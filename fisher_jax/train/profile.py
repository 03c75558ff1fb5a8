"""A trace of some steps for TensorBoard's profiler: --profile_steps=FROM:TO."""

from pathlib import Path

import jax
from jaxtyping import PyTree


class StepTrace:
    """Traces the steps of a range, whole and without their neighbours."""

    def __init__(self, steps: range, directory: Path):
        """Traces nothing yet.

        Args:
            steps: counted from 0 over the whole run; empty: nothing is ever traced.
            directory: TensorBoard's; each process writes a file of its own there.
        """
        self._steps = steps
        self._directory = directory
        self._is_on = False

    def before(self, step: int, state: PyTree) -> None:
        """Starts or ends the trace, where ``step`` comes first or is not traced.

        Args:
            step: about to be dispatched.
            state: what the step before computes, waited for at both ends, because
                steps are dispatched ahead.
        """
        if (step in self._steps) == self._is_on:
            return
        jax.block_until_ready(state)
        if self._is_on:
            self.end()
        else:
            jax.profiler.start_trace(str(self._directory))
            self._is_on = True

    def end(self) -> None:
        """Ends a trace that is still on, and writes it."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
