"""Weights from and for other tools: which layouts there are, and how their tensors are named here.

Imports `methods.base` and `engine.checkpoint`; reads files as tensors and never runs what is in them.
"""
