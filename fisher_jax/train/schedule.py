"""When things happen along a run: updates of the penalty, records, checkpoints."""

from collections.abc import Iterator
from typing import NamedTuple

from fisher_jax import parallel, penalties


class Schedule(NamedTuple):
    """When things happen, in steps counted from 0 and epochs counted from 0.

    Attributes:
        adds_penalty: whether there is a penalty that is renewed every so many steps.
        update_every, first_step: when, as ``add_penalty`` counts.
    """

    num_epochs: int
    steps_per_epoch: int
    adds_penalty: bool
    update_every: int
    first_step: int
    measure_every_epochs: int
    measure_every_steps: int
    checkpoint_every_epochs: int
    checkpoint_min_seconds: float
    hessian_every_epochs: int = 1
    steps_per_call: int = 1

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.num_epochs * self.steps_per_epoch

    def is_penalty_update(self, step: int) -> bool:
        """Whether ``step``, counted from 0, renews the penalty's gradient."""
        return self.adds_penalty and bool(
            penalties.is_penalty_update(step, self.first_step, self.update_every)
        )

    def calls(self, start: int) -> Iterator[range]:
        """Yields the steps that each call of the compiled step takes, from ``start``.

        A call takes ``steps_per_call`` steps, or one. Of several the first alone may
        renew the penalty, and nothing is due before the last is done. The call that
        begins with a step is a function of it, so that a continued run makes the same.
        """
        while start < self.total_steps:
            steps = self._call_from(start)
            yield steps
            start = steps.stop

    def _call_from(self, step: int) -> range:
        steps = range(step, step + self.steps_per_call)
        ends_epoch = (
            -(-steps.stop // self.steps_per_epoch) > step // self.steps_per_epoch + 1
        )
        is_cut = ends_epoch or any(
            self.is_penalty_update(later) or self.is_step_record(later)
            for later in steps[1:]
        )
        return steps[:1] if is_cut else steps

    def is_record(self, done: int) -> bool:
        """Whether a record is written once ``done`` steps are done."""
        return self.is_epoch_record(done) or self.is_step_record(done)

    def is_step_record(self, done: int) -> bool:
        """Whether that record is one of every so many steps, on examples drawn anew."""
        every = self.measure_every_steps
        return bool(every and done % every == 0)

    def is_epoch_record(self, done: int) -> bool:
        """Whether that record also scores the splits: at the end of measured epochs."""
        epoch, rest = divmod(done, self.steps_per_epoch)
        is_measured = epoch % self.measure_every_epochs == 0
        return rest == 0 and (is_measured or epoch == self.num_epochs)

    def has_hessian(self, done: int) -> bool:
        """Whether that record also holds Tr(H): at 0, every so many epochs, at last."""
        epoch = done // self.steps_per_epoch
        is_due = epoch % self.hessian_every_epochs == 0 or epoch == self.num_epochs
        return is_due and self.is_epoch_record(done)

    def is_save(self, done: int, seconds: float) -> bool:
        """Whether a checkpoint is written; the first process's clock decides for all.

        Args:
            seconds: since the last one, or since this session began.
        """
        epoch, rest = divmod(done, self.steps_per_epoch)
        if rest or epoch % self.checkpoint_every_epochs:
            return False
        return parallel.from_first(lambda: seconds >= self.checkpoint_min_seconds)
