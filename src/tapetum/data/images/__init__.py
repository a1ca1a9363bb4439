"""Pixels: decoding files, keeping images, and a cache of decoded ones.

Imports `system` alone; nothing here knows a label.
"""
