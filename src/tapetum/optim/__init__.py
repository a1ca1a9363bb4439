"""Optimizers, schedules as functions of the step, and which parameters are decayed.

Imports nothing of Tapetum.
"""
