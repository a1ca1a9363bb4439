"""Whatever a user points at, opened as images and labels; one file for each format.

Imports `data.images` and `data.labels`.
"""
