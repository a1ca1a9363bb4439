"""The training loop and what it needs: devices, checkpoints, exact resumption, budgets, metrics.

Depends on `methods.base` and `data.batch`, but not on any particular method, network or recipe.
"""
