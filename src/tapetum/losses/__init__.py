"""Losses: pure functions of tensors, in float32 or better whatever autocast says.

Imports `ops` alone.
"""
