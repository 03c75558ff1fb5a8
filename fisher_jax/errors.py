"""The one exception whose text is meant for the person at the command line."""


class UserError(ValueError):
    """Bad input or surroundings; the text is one line that says what to change."""


def one_line(error: BaseException) -> str:
    """Returns the error's text without line breaks."""
    return " ".join(str(error).split())
