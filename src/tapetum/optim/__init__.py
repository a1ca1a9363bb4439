"""Optimizers, schedules as functions of the step, and the choice of parameters to decay.

Imports nothing else of Tapetum.
"""
