"""From recordings to batches: audio, cache, manifests, data sets, noise.

Imports `utils`.
"""
