"""From files to batches: images, their labels, the views of them, and the batches; `batch.py` defines a batch.

Imports `ops` for randomness and `system` for files, but no model, method or engine.
"""
