"""Operations on tensors and keys that have no parameters: randomness, collectives, Sinkhorn, k-means, neighbours.

Imports nothing of Tapetum.
"""
