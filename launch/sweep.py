"""Runs an experiment's sweep: its searches first, then its final runs.

python -m launch.sweep --config=experiments/table1.py --out=runs/table1
python -m launch.sweep --config=experiments/table1.py:small --out=runs/table1_small
python -m launch.sweep --out=runs/table1 --status

--config.KEY=VALUE sets a key for every run, such as --config.dataset.data_dir=DIR. The
same command continues: it skips finished runs, resumes interrupted ones and retries
failed ones. A sweep can grow: new runs are run, a search whose grid grew is decided
again, and only a changed run is refused. Where a value is tuned, OUT/selection.json
says what was chosen, by which scores, and which runs use it.

Exit codes: 0 all runs ended, 1 some failed, 2 bad input, 75 stopped by SIGTERM or
SIGHUP and 130 by Ctrl-C, with every run saved.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fisher_jax.errors import UserError, needs_extra, one_line
from fisher_jax.host.output import keep_writing
from fisher_jax.host.paths import path_argument
from launch import folder
from launch.parser import Parser, positive

with needs_extra("train"):
    from rich.console import Console

    from launch.table import runs_table

if TYPE_CHECKING:
    from launch.slurm import SlurmOptions
    from launch.work import Work


def main(argv: Sequence[str]) -> int:
    """Runs, shows or prices a sweep; returns the exit code."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    try:
        options, rest = _parser().parse_known_args(argv)
        if options.status:
            return _show_status(console, options)
        # Only now: --status should not wait for what checks configurations.
        from fisher_jax.train.config import split_overrides

        unknown, overrides = split_overrides(rest)
        if unknown:
            raise UserError(f"unexpected argument {unknown[0]!r}; see --help")
        if not options.config:
            raise UserError("--config is missing; see --help")
        if options.estimate:
            from launch.estimate import print_estimate

            return print_estimate(
                console,
                options.config,
                overrides,
                options.utilisation,
                options.topology,
                options.only,
            )
        if options.topology:
            raise UserError("--topology is for --estimate")
        return _run(console, options, overrides)
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    parser = Parser("python -m launch.sweep", __doc__)
    add = parser.add_argument
    add(
        "--config",
        help="experiment FILE.py[:FORM] with a get_sweep(); forms of the "
        "paper's: small, medium",
    )
    add("--out", type=path_argument, help="the sweep's folder, created if missing")
    add("--executor", choices=("local", "slurm"), default="local",
        help="where runs go: this machine (the default) or Slurm")  # fmt: skip
    add("--at_a_time", type=positive, help="runs side by side (default: one per "
        "accelerator, or one for every two cores; Slurm: no limit)")  # fmt: skip
    add("--only", action="append", default=[], metavar="PATTERN",
        help="only runs whose names match, such as 'search-*-fp-*'; can be repeated"
    )  # fmt: skip
    add("--winners", type=path_argument, metavar="FILE",
        help="selection.json of another sweep, to use its choices")  # fmt: skip
    add("--max_failures", type=positive, default=3,
        help="give up on a run after this many failures (default 3)")  # fmt: skip
    add("--dry_run", action="store_true", help="print the commands, run nothing")
    add("--status", action="store_true", help="print the state of the runs")
    add("--estimate", action="store_true",
        help="work, memory and time on three devices; runs nothing")  # fmt: skip
    add("--utilisation", type=float, default=0.3,
        help="share of a device's peak that --estimate assumes (0.3)")  # fmt: skip
    add("--topology", metavar="SLICE", help="with --estimate: compile for these "
        "devices, such as v5e:4x4 or h100:8; print the compiler's numbers")  # fmt: skip
    slurm = parser.add_argument_group("Slurm")
    for name, example in _SLURM_TEXTS.items():
        slurm.add_argument(f"--{name}", help=f"for example {example}")
    slurm.add_argument("--setup", action="append", default=[], metavar="LINE",
        help="a shell line before each run, such as 'module load cuda'; can be repeated"
    )  # fmt: skip
    slurm.add_argument("--time", type=positive, default=1440, metavar="MINUTES",
                       help="time limit per job (default 1440); a run that reaches it "
                       "saves and is queued again")  # fmt: skip
    slurm.add_argument("--poll_seconds", type=positive, default=15,
                       help="seconds between looks at the queue (15)")  # fmt: skip
    slurm.add_argument("--cpus_per_task", type=positive, default=4,
                       help="cores per run (default 4)")  # fmt: skip
    slurm.add_argument("--requeue", action=argparse.BooleanOptionalAction, default=True,
                       help="queue preempted runs again (the default)")  # fmt: skip
    return parser


# Handed to sbatch as they are; without one the cluster's default holds.
_SLURM_TEXTS = {
    "account": "my_project",
    "partition": "gpu",
    "qos": "normal",
    "constraint": "a100",
    "gres": "gpu:1",
    "mem": "32G",
}


def _show_status(console: Console, options: argparse.Namespace) -> int:
    if options.out is None:
        raise UserError("--status needs --out")
    names = folder.wanted(
        list(folder.open_folder(options.out, None)["runs"]), options.only
    )
    locked = folder.locked_files()
    states = {name: folder.read_state(options.out / name, locked) for name in names}
    if any(state.job for state in states.values()):
        from launch.slurm import with_queue

        states = with_queue(states)
    # A file or pipe is no reason to cut names.
    wide = console if console.is_terminal else Console(width=200, highlight=False)
    wide.print(runs_table(names, states))
    return 0


def _run(
    console: Console, options: argparse.Namespace, overrides: list[tuple[str, str]]
) -> int:
    from fisher_jax.train.config import split_path
    from launch.definition import fingerprint, first_difference, grown, load_definition
    from launch.winners import read_selection
    from launch.work import Work, command_of, matching

    definition = load_definition(options.config, overrides)
    given = read_selection(options.winners) if options.winners else {}
    out = options.out or Path("runs") / Path(split_path(definition.path)[0]).stem
    if options.dry_run:
        chosen = {name: entry["value"] for name, entry in given.items()}
        runs = matching(definition.plan(chosen or None), options.only)
        if options.executor == "slurm":
            from launch.slurm import submission

            # A stage is an array: final runs follow the searches that they need.
            first = [run for run in runs if run.search] or runs
            console.print(submission(out, _slurm_options(options), len(first)))
        for run in runs:
            console.print(shlex.join(command_of(definition, run, out)))
        return 0
    if options.out is None:
        raise UserError("--out is missing; see --help")
    # Before the folder is written, which keeps this definition.
    matching(definition.plan(None), options.only)
    if options.executor == "slurm":
        from launch.slurm import check_slurm

        check_slurm()
    ours = fingerprint(definition)
    theirs = folder.open_folder(out, ours)
    difference = first_difference(ours, theirs)
    if difference:
        raise UserError(
            f"the sweep in {out} is not this one: {difference}. Choose another --out"
        )
    with folder.lock(out, lambda text: console.print(f"Warning: {text}")):
        gone = [n for n in theirs["runs"] if n not in ours["runs"]]
        kept = [name for name in gone if (out / name).is_dir()]
        folder.write_json(out / "sweep.json", grown(ours, theirs, kept))
        if new := len(ours["runs"].keys() - theirs["runs"].keys()):
            console.print(f"The sweep has grown: {new} new run{'s' * (new > 1)}.")
        if kept:
            console.print(f"No longer in the sweep, but kept: {', '.join(kept)}")
        work = Work(definition, out, given=given, only=options.only,
                    max_failures=options.max_failures)  # fmt: skip
        return _execute(console, options, work)


def _execute(console: Console, options: argparse.Namespace, work: "Work") -> int:
    from launch.local import environments, run_locally
    from launch.processes import Pool, StopRequested

    try:
        if options.executor == "slurm":
            from launch.slurm import run_on_slurm

            run_on_slurm(work, _slurm_options(options), console)
        else:
            pool = Pool(environments(options.at_a_time))
            run_locally(work, pool, console)
    except KeyboardInterrupt:
        console.print("Stopped; the same command continues.")
        return 130
    except StopRequested:
        console.print("Stopped by a signal; the same command continues.")
        return 75
    return _conclude(console, work)


def _slurm_options(options: argparse.Namespace) -> "SlurmOptions":
    from launch.slurm import SlurmOptions

    return SlurmOptions(**{n: getattr(options, n) for n in SlurmOptions._fields})


def _conclude(console: Console, work: "Work") -> int:
    """Says how the sweep stands at its end."""
    from launch.winners import edge_warnings

    work.update(work.names)
    left = [name for name in work.names if work.states[name].state not in folder.ENDED]
    if left or console.is_terminal:
        shown = left if left else work.names
        console.print(runs_table(shown, work.states))
    for line in work.changes:
        console.print(line)
    for line in edge_warnings(work.selection):
        console.print(f"Warning: {line}")
    for problem in work.problems.values():
        print(f"error: {problem}", file=sys.stderr)
    if work.problems:
        return 2
    if left:
        console.print(f"{len(left)} of {len(work.names)} runs have not ended.")
        return 1
    console.print(f"All {len(work.names)} runs have ended: {work.out}")
    return 0


if __name__ == "__main__":
    keep_writing()
    sys.exit(main(sys.argv[1:]))
