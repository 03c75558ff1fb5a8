"""One training run: configuration, state, compiled step, loop, checkpoints, records.

The only package that knows models, data and penalties together; no mathematics here.
"""
