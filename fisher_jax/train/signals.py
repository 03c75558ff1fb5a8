"""Signals that ask a run to stop: noted, so that it can save before it ends."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
EXIT_PREEMPTED, EXIT_INTERRUPTED = 75, 130


class StopNow(BaseException):
    """Raised in the main thread inside ``interruptible``, when a signal arrives."""


class StopSignals:
    """Which stop signals have arrived, and whether to break off at once.

    Before the loop starts nothing is unsaved, so a signal ends the process there and
    then with the exit code it would have had later.

    Several processes stop after the same step, whichever of them got the signal, and
    never inside ``interruptible``: the others would wait for the one that broke off.
    """

    def __init__(self) -> None:
        """Notes nothing until ``install``."""
        self.received: list[int] = []
        self._any_wants: Callable[[bool], bool] | None = None
        self._is_wanted_by_any = False
        self._is_running = False
        self._is_interruptible = False

    def install(self) -> None:
        """Takes over the stop signals for the rest of the process.

        But for a SIGHUP that ``nohup`` has had ignored.
        """
        for number in STOP_SIGNALS:
            is_nohup = number == signal.SIGHUP and (
                signal.getsignal(number) == signal.SIG_IGN
            )
            if not is_nohup:
                signal.signal(number, self._note)

    def start_noting(self, any_wants: Callable[[bool], bool] | None = None) -> None:
        """From here on there is something to save: signals are noted, not obeyed.

        Args:
            any_wants: turns this process's wish to stop into that of any process, when
                called once a step on all; None: there is only this one.
        """
        self._any_wants = any_wants
        self._is_running = True

    def ask_all(self) -> None:
        """Brings ``is_due`` up to date; every process calls this once a step."""
        if self._any_wants is not None:
            self._is_wanted_by_any = self._any_wants(bool(self.received))

    @property
    def is_due(self) -> bool:
        """Whether to stop: the same on all processes between two ``ask_all``."""
        alone = self._any_wants is None
        return bool(self.received) if alone else self._is_wanted_by_any

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 75."""
        is_interrupt = bool(self.received) and self.received[0] == signal.SIGINT
        return EXIT_INTERRUPTED if is_interrupt else EXIT_PREEMPTED

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises StopNow: for long work that can be done again."""
        self._is_interruptible = self._any_wants is None
        try:
            yield
        finally:
            self._is_interruptible = False

    def _note(self, number: int, frame: Any) -> None:
        is_second_interrupt = number == signal.SIGINT and bool(self.received)
        self.received.append(number)
        if not self._is_running or is_second_interrupt:
            os._exit(self.exit_code)
        if self._is_interruptible:
            self._is_interruptible = False
            raise StopNow
