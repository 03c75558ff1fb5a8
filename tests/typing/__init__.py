"""A user's code with types, for mypy alone: nothing here is run."""
