"""Chooses the images of each step and turns them into its batch.

Imports `data.images`, `data.labels`, `data.views` and `data.batch`.
"""
