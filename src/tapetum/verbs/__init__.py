"""One file, one public function, one command: what a person asks for, and what is printed in answer.

May import every room but `cli`.
"""
