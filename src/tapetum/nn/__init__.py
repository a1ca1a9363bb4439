"""Networks and their parts: backbones, heads, prototypes, batch normalisation over processes.

Imports only `ops`.
"""
