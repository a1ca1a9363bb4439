"""Which images a step sees, and the one path by which they become its batch.

Imports `data.images`, `data.labels`, `data.views` and `data.batch`.
"""
