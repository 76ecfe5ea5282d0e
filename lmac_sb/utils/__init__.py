"""What every room may use: the error for users, files, checksums, the lock,
yamls of unknown origin.

Imports nothing of the package. What belongs to one room alone goes there.
"""
