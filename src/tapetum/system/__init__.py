"""What the operating system gives: files that are whole or not there, signals, launchers, notices on stderr.

Imports nothing of Tapetum and no torch.
"""
