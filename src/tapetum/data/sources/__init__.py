"""Opens what a user points at (files, folders, arrays, tables) as images and labels; one module per format.

Imports `data.images` and `data.labels`.
"""
