"""What every room may use: the error for users, files, checksums, the lock.

Imports nothing of the package.
"""
