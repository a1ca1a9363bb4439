"""Verbs: one file for each public function, which is also a command of the same name."""
