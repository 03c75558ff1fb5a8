"""Trains one model and records its curvature along the way.

python main.py --config=experiments/digits_fp.py --workdir=runs/digits_fp

--config=FILE.py[:variant] names an experiment, a file with get_config(); a run's own
config.json works too. Any key can be set: --config.penalty.coefficient=0.3. All keys,
explained: experiments/base.py. The same command on the same workdir continues a run.

Exit codes: 0 finished, 2 bad configuration or data, 3 diverged, 75 preempted after
saving (SIGTERM or SIGUSR1), 130 interrupted after saving (Ctrl-C).
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging

from fisher_jax.errors import UserError, one_line
from fisher_jax.train.config import load_config, split_overrides

_CONFIG = flags.DEFINE_string("config", None, "experiment file.py[:variant]")
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory, made if absent")


def parse_flags(argv: Sequence[str]) -> Sequence[str]:
    """Parses all but the --config.a.b=v arguments; returns the whole command line."""
    try:
        unexpected = flags.FLAGS(split_overrides(argv)[0])[1:]
        if unexpected:
            raise flags.Error(f"unexpected argument {unexpected[0]!r}")
    except flags.Error as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    return argv


def main(argv: Sequence[str]) -> int:
    """Loads the configuration and runs it; returns the exit code."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        file, workdir = _CONFIG.value, _WORKDIR.value
        if not file or not workdir:
            missing = "workdir" if file else "config"
            raise UserError(f"--{missing} is missing; see python main.py --help")
        config = load_config(file, split_overrides(argv)[1])
        # Only now: a mistyped key should not wait for Orbax and TensorBoard.
        from fisher_jax.train.run import run

        return run(config, workdir, argv)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
