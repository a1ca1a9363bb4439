"""Weights from and for other tools: their layouts, and how their tensors are named in Tapetum.

Imports `methods.base` and `engine.checkpoint`; reads files as tensors and never runs code in them.
"""
