"""Augmented views: parameters are drawn first (numpy), then applied to pixels (tensors).

Imports `ops` for randomness.
"""
