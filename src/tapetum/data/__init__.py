"""From files to batches: `images`, `labels`, `sources`, `views`, `batches`, `health`; `batch.py` defines a batch.

Imports `ops` for randomness and `system` for files, but no model, method or engine.
"""
