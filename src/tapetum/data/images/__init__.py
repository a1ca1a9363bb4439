"""Pixels: decoding image files, storing images, and caching decoded ones.

Imports only `system`; nothing here knows about labels.
"""
