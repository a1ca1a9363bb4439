"""One file per paper; `base.py` is the interface they share, `registry.py` finds a method by its `kind`.

Imports only `losses`, `nn`, `ops` and `data.batch`; a method never sees the trainer, optimizer, logger or rank.
"""
