"""The run folder and everything done with one: made from a recipe, trained, brought back, judged, queued.

The one room where data, methods and engine meet. Imports every room but `cli`, `verbs` and `reporting`.
"""
