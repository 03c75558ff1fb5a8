"""The error that says what is wrong with the user's data."""

from fisher_jax.errors import UserError


class DataError(UserError):
    """Bad data: one line that names the file or folder and what to do about it.

    The command line prints the message alone and exits with code 2, so it has to be
    complete without a traceback.
    """
