"""Every method, on every clip, under every contamination; tables and figures.

Imports `inference` and all before it.
"""
