"""The collapse doctor: it watches a training, and knows by rules what is wrong and what helps.

Imports `engine` for callbacks and metrics.csv; rules know metrics and settings alone.
"""
