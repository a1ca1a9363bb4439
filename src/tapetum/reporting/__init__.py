"""What people and programs are given to read: tables, figures and pages.

Imports what it shows (`evaluation`, `data`) and `system`; it calculates nothing that is a result.
"""
