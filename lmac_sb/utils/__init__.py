"""What every room may use: the error for users, files and their checksums,
the lock.

Imports nothing of the package.
"""
