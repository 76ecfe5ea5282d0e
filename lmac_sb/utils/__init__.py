"""What every room may use: the error for users, files, checksums, the lock.

Imports nothing of the package. What belongs to one room alone goes there.
"""
