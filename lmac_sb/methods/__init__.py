"""What L-MAC is compared with, by name.

Imports `explain`, `metrics`, `models` and `utils`.
"""
