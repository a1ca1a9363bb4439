"""Output for people and programs: tables, figures and pages.

Imports what it shows (`evaluation`, `data`) and `ops` and `system`; it computes no results itself.
"""
