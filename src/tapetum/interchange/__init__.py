"""Weights from other tools, and models for them; nothing in a file is ever run.

Holds nothing itself: `weights/` and `exports/` say what they import.
"""
