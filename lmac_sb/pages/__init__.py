"""HTML pages: the report and the listening test.

Imports `evaluation` and all before it.
"""
