"""Operations without parameters on tensors and keys: randomness, collectives, Sinkhorn, k-means, neighbours.

Imports nothing else of Tapetum.
"""
