"""Losses: pure functions of tensors, in float32 or better even under autocast.

Imports only `ops`.
"""
