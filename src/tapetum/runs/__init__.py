"""Run folders and everything done with one: make it from a recipe, train, reload, evaluate and queue it.

The only room where data, methods and engine meet. Imports every room except `cli` and `verbs`; of `reporting` only the
table of predictions.
"""
