"""The command line: the arguments of each command, how errors are shown, and exit codes.

Imports only `system` at start; a verb is imported when its command is called, so that `tapetum --help` loads no torch.
"""
