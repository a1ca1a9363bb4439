"""Which images are labelled, and as what: reading label files, drawing subsets, holding out.

Knows images by name alone; imports `ops` for randomness and `system`.
"""
