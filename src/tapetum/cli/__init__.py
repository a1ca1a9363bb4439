"""The command line: what each command takes, what an error says, and the exit code.

Imports `system` alone at start; a verb is imported when its command is called, so that `tapetum --help` loads no torch.
"""
