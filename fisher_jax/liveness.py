"""Ends a process of a run when another one is lost, whatever it is waiting for.

A lost process is noticed at once where a sum over devices fails; but a survivor may as
well wait for it in a barrier of a checkpoint, or in a sum of a GPU library that knows
no timeout. JAX's own answer is to abort with a C++ stack trace. So each process counts
up in the key-value store that JAX's coordinator keeps, and watches the others count.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
from jax._src import distributed

PERIOD_SECONDS = 2.0
LOST_SECONDS = 30.0  # startup.HEARTBEAT_SECONDS is to be twice as long and more
FOLDER = "fisher_jax/alive"
LOST = "lost"
ENDED = "ended"


class Liveness:
    """Counts up for this process and watches the others, until ``end``."""

    def __init__(self, client: Any, process: int, on_loss: Callable[[str], None]):
        """Starts both.

        Args:
            client: of JAX's coordinator: key_value_set and key_value_dir_get.
            process: this one's index.
            on_loss: is called once, in a thread, with what has been noticed; it should
                end the process. When it is called the others have been told.
        """
        self._client, self._process, self._on_loss = client, process, on_loss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stops; the others no longer expect to hear from this process."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join(timeout=3 * PERIOD_SECONDS)
            self._say(ENDED)

    def _watch(self) -> None:
        seen: dict[str, tuple[str, float]] = {}
        count = 0
        while not self._ended.wait(PERIOD_SECONDS):
            count += 1
            try:
                self._client.key_value_set(
                    f"{FOLDER}/{self._process}", str(count), allow_overwrite=True
                )
                values = dict(self._client.key_value_dir_get(FOLDER))
            except jax.errors.JaxRuntimeError:
                return self._lose("the first process does not answer")
            now = time.monotonic()
            for key, value in values.items():
                if value == LOST:
                    return self._lose("another process has noticed it")
                if key not in seen or seen[key][0] != value:
                    seen[key] = value, now
                silent = now - seen[key][1]
                if value != ENDED and silent > LOST_SECONDS:
                    self._say(LOST)
                    # The first process takes the store with it: let all read it first.
                    time.sleep(2 * PERIOD_SECONDS)
                    name = key.rsplit("/", 1)[-1]
                    return self._lose(f"process {name} silent for {silent:.0f} s")
        return None

    def _lose(self, why: str) -> None:
        if not self._ended.is_set():
            self._on_loss(why)

    def _say(self, value: str) -> None:
        # If the store has gone, so has whoever would read it.
        with suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(
                f"{FOLDER}/{self._process}", value, allow_overwrite=True
            )


def watch_processes(on_loss: Callable[[str], None]) -> Liveness | None:
    """Starts watching the other processes of the run, if there are any."""
    state = distributed.global_state
    if state.client is None or not state.num_processes or state.num_processes == 1:
        return None
    return Liveness(state.client, state.process_id, on_loss)
