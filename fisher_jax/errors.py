"""What is said to the person at the command line, in one line each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("benchmarks", "experiments", "fisher_jax", "launch")


class UserError(ValueError):
    """Bad input or surroundings; the text is one line that says what to change."""


class DataError(UserError):
    """Bad data; the text names the file or folder and what to do about it."""


def one_line(error: BaseException) -> str:
    """Returns the error's text without line breaks."""
    return " ".join(str(error).split())


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Around a program's imports: one line and exit code 2 where a package is missing.

    So is a JAX_... variable told that JAX does not understand, when it is imported.

    Args:
        name: the extra of setup.cfg that has these packages.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *_OURS):
            raise
        print(
            f"error: {package} is not installed; it comes with the extra {name}: pip "
            f"install -e '.[{name}]' in a clone",
            file=sys.stderr,
        )
        sys.exit(2)
    except ValueError as error:
        if "environment 'JAX" not in str(error) and "JAX flag" not in str(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
