"""The command lines of the programs in this folder: mistakes get one line."""

import argparse
from typing import Any, NoReturn

from fisher_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse's parser, with the module's docstring as help and one-line errors."""

    def __init__(self, program: str, description: str | None, **options: Any):
        """Makes a parser without arguments."""
        super().__init__(
            prog=program,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raises UserError, where argparse would print its usage and exit."""
        raise UserError(f"{message}; see --help")


def positive(text: str) -> int:
    """Returns the integer, at least 1; for ``type=``."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer above 0, got {text!r}")
    return number
