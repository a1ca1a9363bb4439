"""Augmented views: drawn as plain parameters, then applied to pixels.

Imports `ops` for randomness; parameters are numpy, pixels are tensors.
"""
