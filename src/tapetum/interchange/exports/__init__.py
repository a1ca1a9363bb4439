"""Trained models for other tools: one file per format, each a function of a `TrainedModel` and a path.

Writes what the tool's own loader reads, with the preprocessing beside it, and refuses a model that would lose
something. Imports `nn`, `methods`, `evaluation` and the evaluation view of `data.views`.
"""
