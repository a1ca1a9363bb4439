"""Evaluates and uses a trained method without changing it: accuracy, prediction, calibration, clusters.

Imports `methods.base`, `data` and `ops`; never the engine, a recipe or a run.
"""
