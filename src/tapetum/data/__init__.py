"""From files to batches: `images`, `labels`, `sources`, `views`, `batches`, `health`; `batch.py` is what a step gets.

Imports no model, method or engine; `ops` for randomness, `system` for files.
"""
