"""Starts runs of main.py and waits for them: sweeps, Slurm, TPU slices, reruns.

Nothing here trains; it knows commands, run directories and exit codes, and prices a
sweep by XLA's analysis of its compiled steps.
"""
