"""The one error that says something is wrong with the user's data."""


class DataError(ValueError):
    """Bad data: one line that names the file or folder and what to do about it.

    The command line prints the message alone and exits with code 2, so it has to be
    complete without a traceback.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
