"""Standard output and error that never end a run: what they cannot take is left out."""

import io
import os
import sys
from typing import TextIO


def clock(seconds: float) -> str:
    """Returns "3:20" or "2:03:20"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def keep_writing() -> None:
    """Replaces standard output and error; for programs, before they print anything.

    A character that the encoding does not have becomes "?". Where the reader goes away
    (``| head -1``, a closed connection) or the disk is full, the rest is dropped, which
    standard error says once: a run's results are its files.
    """
    sys.stdout = _steady(sys.stdout)
    sys.stderr = _steady(sys.stderr)


def _steady(stream: TextIO | None) -> TextIO:
    try:
        if stream is None:  # closed before the program started
            raise OSError
        raw = io.FileIO(stream.fileno(), "w", closefd=False)
    except OSError:
        return open(os.devnull, "w")
    return _Steady(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=True,
    )


class _Steady(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Sends what is left, and all that comes, nowhere: libraries' output, too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if self.fileno() != 2:
            print(
                f"Warning: cannot write to standard output ({error.strerror}); "
                "continuing without it",
                file=sys.stderr,
            )
