"""Trains one model and records its curvature along the way.

python main.py --config=experiments/digits_fp.py

--config=FILE.py[:variant] names an experiment, a file with get_config(); a run's own
config.json works too. Set any key with --config.penalty.coefficient=0.3; all keys are
explained in fisher_jax/train/keys.py. A run writes to runs/EXPERIMENT[_VARIANT], or to
--workdir=DIR. The same command on the same folder continues a run.

One process uses all its devices. On a TPU pod or under srun, start the same command
everywhere. Elsewhere, give each of several processes --coordinator_address=HOST:PORT,
--num_processes and --process_id. --profile_steps=FROM:TO traces these steps.

Exit codes: 0 finished, 2 bad configuration or data, 3 diverged, 75 preempted after
saving (SIGTERM, SIGUSR1, SIGHUP) or another process lost, 130 interrupted after saving.
"""

import sys
from collections.abc import Sequence

from fisher_jax.errors import UserError, needs_extra, one_line
from fisher_jax.host.output import keep_writing

with needs_extra("train"):
    from absl import app, flags, logging

    from fisher_jax.train.command_line import parse_flags, read_command_line
    from fisher_jax.train.config import load_config


def main(argv: Sequence[str]) -> int:
    """Loads the configuration and runs it; returns the exit code."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        command = read_command_line(argv)
        config = load_config(command.config, command.overrides)
        # Only now: a mistyped key should not wait for Orbax and TensorBoard.
        with needs_extra("train"):
            from fisher_jax.train.run import run

        return run(config, command)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    keep_writing()
    app.run(main, flags_parser=parse_flags)
