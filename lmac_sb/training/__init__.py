"""The Brain, its checkpoints, and what a run is.

Imports `data`, `models`, `metrics` and `utils`.
"""
