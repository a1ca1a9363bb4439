"""Operating system services: files that are complete or absent, signals, launchers, notices on stderr.

Imports neither torch nor any other part of Tapetum.
"""
