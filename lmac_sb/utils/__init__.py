"""What every room may use: errors, files, checksums, safe yaml, the lock.

Imports nothing of the package. What belongs to one room alone goes there.
"""
