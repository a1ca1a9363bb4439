"""Recipes: what can be set, how a file becomes a checked `Recipe`, and how one is chosen for data or weights.

Imports the rooms whose configs a recipe contains (`engine`, `methods`, `nn`, `optim`, `data`). The only room that
imports pydantic and YAML.
"""
