"""Starts runs of main.py, several at a time, and waits for them.

Nothing here computes; it knows commands, run directories and exit codes.
"""
