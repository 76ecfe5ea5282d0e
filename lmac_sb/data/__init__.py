"""From recordings to batches: audio, cache, manifests, data sets, noise.

Imports `utils`.

**One more data set** is a preparation that writes a manifest for each split, as
`esc50_prepare.py` does in the recipe; all else reads those.
"""
