"""The Brain, its checkpoints, and the identity of a run.

Imports `data`, `models`, `metrics` and `utils`.
"""
