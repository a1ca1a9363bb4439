"""Which images are labelled, and with which class: reading label files, drawing subsets, holding labels out.

Knows images only by name; imports `ops`, for randomness, and `system`.
"""
