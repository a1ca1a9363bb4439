"""The commands: each file has one public function, which does what one command does and prints the result.

Imports any package except `cli`.
"""
