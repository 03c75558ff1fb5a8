"""What a program finds around it: terminal, file systems, processor, launcher.

Standard library only: programs look at these before they import JAX.
"""
