"""The training loop and what it needs: devices, checkpoints, exact resumption, budgets, metrics.

Knows `methods.base` and `data.batch`, and no method, network or recipe by name.
"""
