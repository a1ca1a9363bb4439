"""One file per paper; `base.py` is the boundary, `registry.py` finds a method by its `kind`.

Imports `losses`, `nn`, `ops` and `data.batch`; a method never sees trainer, optimizer, logger or rank.
"""
