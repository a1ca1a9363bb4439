"""Finds what is wrong with a pool: unreadable files, duplicates, leaks, conflicts.

Imports `data.sources` and `data.images`.
"""
