"""A trained model: loaded, exported, and what it says of a file.

Imports `training` and all before it.
"""
