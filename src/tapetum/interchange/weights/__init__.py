"""Weights from other tools: reading their files, recognising layout and network, and what a method takes of them.

Files are read as tensors; code in them is never run. May import `methods.base`, `nn` and `engine.checkpoint`.
"""
