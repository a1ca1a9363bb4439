"""Label files as other tools read and write them, one module for each format: from content to entries, and back.

Finds no image and touches no file. Imports the standard library alone.
"""
