"""Trains one model and records its curvature along the way.

python main.py --config=experiments/digits_fp.py --workdir=runs/digits_fp

--config=FILE.py[:variant] names an experiment, a file with get_config(); a run's own
config.json works too. Any key can be set: --config.penalty.coefficient=0.3. All keys,
explained: experiments/base.py. The same command on the same workdir continues a run.

Exit codes: 0 finished, 2 bad configuration or data, 3 diverged, 75 preempted after
saving (SIGTERM or SIGUSR1), 130 interrupted after saving (Ctrl-C).
"""

import re
import sys
from collections.abc import Sequence

from absl import app, flags

from fisher_jax.errors import UserError, one_line
from fisher_jax.train.config import load_config

_CONFIG = flags.DEFINE_string("config", None, "experiment file.py[:variant]")
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory, made if absent")
_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes the --config.a.b=v (or --config.a.b v) arguments out of argv."""
    rest: list[str] = []
    overrides: list[tuple[str, str]] = []
    arguments = iter(argv)
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None:
            rest.append(argument)
        else:
            key, value = match.groups()
            overrides.append((key, next(arguments, "") if value is None else value))
    return rest, overrides


def main(argv: Sequence[str]) -> int:
    """Loads the configuration and runs it; returns the exit code."""
    rest, overrides = split_overrides(argv)
    try:
        unknown = flags.FLAGS(rest)[1:]
        if unknown:
            raise UserError(f"unexpected argument {unknown[0]!r}")
        for name in ("config", "workdir"):
            if not flags.FLAGS[name].value:
                raise UserError(f"--{name} is missing; see python main.py --help")
        config = load_config(_CONFIG.value, overrides)
        # Only now: importing JAX takes seconds, a mistyped key should not.
        from fisher_jax.train.run import run

        return run(config, _WORKDIR.value, [*argv])
    except (UserError, flags.Error) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: argv)
