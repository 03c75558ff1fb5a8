"""Rows and targets, as results.json, as Markdown and on the terminal.

``python -m benchmarks.report`` writes every results.md anew from its results.json.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.accuracy import Accuracy
from benchmarks.summary import FOLDER, RESULTS
from benchmarks.timing import Ratio, Times

if TYPE_CHECKING:  # needs PyTorch
    from benchmarks.work import Section

MEBIBYTE = 2**20


class Row(NamedTuple):
    """One program of one section.

    Attributes:
        name: of the program.
        milliseconds: median of a call, scaled to the whole quantity.
        ratio: to the section's reference, in common rounds.
        gflop: XLA's count; None for a peer.
        temp_mib: temporary memory; None for a peer.
    """

    name: str
    milliseconds: float
    ratio: Ratio
    gflop: float | None
    temp_mib: float | None


class Table(NamedTuple):
    """One section on one network."""

    network: str
    title: str
    reference: str
    rows: list[Row]


class Target(NamedTuple):
    """A limit that the benchmark is held to, and what was measured.

    Attributes:
        name: what is compared.
        limit: the largest value that meets it.
        value: measured, a median.
        low: smallest in any round; the value itself if nothing was timed.
        high: largest.
        network: on which.
    """

    name: str
    limit: float
    value: float
    low: float
    high: float
    network: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the median is within the limit."""
        return self.value <= self.limit


def timed_target(name: str, limit: float, ratio: Ratio) -> Target:
    """A target for a ratio of times."""
    return Target(name, limit, ratio.median, ratio.low, ratio.high)


def counted_target(name: str, limit: float, value: float) -> Target:
    """A target for something that is counted and not timed."""
    return Target(name, limit, value, value, value)


def make_table(
    network: str, title: str, section: "Section", times: Times, reference: str
) -> Table:
    """The rows of a section, ratios to ``reference``."""
    rows = []
    for name in section.calls:
        scale = 1 / section.work.get(name, 1)
        relative = scale * section.work.get(reference, 1)
        ratio = times.ratio(name, reference)
        ratio = Ratio(*(relative * r for r in ratio[:3]), ratio.rounds)
        program = section.programs.get(name)
        rows.append(
            Row(
                name,
                1e3 * scale * times.median(name),
                ratio,
                program and scale * program.flops / 1e9,
                program and program.temp_bytes / MEBIBYTE,
            )
        )
    return Table(network, title, reference, rows)


class Results(NamedTuple):
    """All that a run has measured."""

    machine: dict[str, Any]
    targets: list[Target]
    tables: list[Table]
    penalty_flops: dict[str, dict[str, float]]
    memory: list[dict[str, Any]]
    accuracy: list[Accuracy]
    notes: list[str]


def without_flops(results: Results) -> Results:
    """The results without XLA's counts: on GPUs they omit cuDNN's convolutions."""
    return results._replace(
        targets=[t for t in results.targets if "FLOPs" not in t.name],
        tables=[
            t._replace(rows=[r._replace(gflop=None) for r in t.rows])
            for t in results.tables
        ],
        penalty_flops={},
    )


def write(results: Results, folder: Path) -> str:
    """Writes results.json and results.md; returns the Markdown."""
    if results.machine.get("device", "cpu") != "cpu":
        results = without_flops(results)
    record = {
        "machine": results.machine,
        "targets": [t._asdict() | {"met": t.is_met} for t in results.targets],
        "tables": [
            t._asdict()
            | {"rows": [r._asdict() | {"ratio": r.ratio._asdict()} for r in t.rows]}
            for t in results.tables
        ],
        "penalty_gradient_flops_in_gradients": results.penalty_flops,
        "memory": results.memory,
        "accuracy_per_cost": [a._asdict() for a in results.accuracy],
        "notes": results.notes,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    markdown = to_markdown(results)
    (folder / "results.md").write_text(markdown, encoding="utf-8")
    return markdown


def read(folder: Path) -> Results:
    """What ``write`` put into results.json."""
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for target in record["targets"]:
        del target["met"]  # follows from the rest
    for table in record["tables"]:
        for row in table["rows"]:
            row["ratio"] = Ratio(**row["ratio"])
        table["rows"] = [Row(**row) for row in table["rows"]]
    return Results(
        record["machine"],
        [Target(**target) for target in record["targets"]],
        [Table(**table) for table in record["tables"]],
        record["penalty_gradient_flops_in_gradients"],
        record["memory"],
        [Accuracy(**row) for row in record["accuracy_per_cost"]],
        record["notes"],
    )


def to_markdown(results: Results) -> str:
    """The whole report."""
    machine = results.machine
    device = machine.get("device", "cpu")
    where = f"{machine['cores']} CPU cores" if device == "cpu" else f"one {device}"
    parts = [
        f"# Speed on {where}",
        "Made by `python -m benchmarks.run`; do not edit. "
        f"{machine['date']}, jax {machine['jax']}, "
        f"torch {machine['torch']}, XLA_FLAGS `{machine['xla_flags'] or 'unset'}`; "
        f"load average {machine['load_before']} before and "
        f"{machine.get('load_after', 'unknown')} after. Times are medians of "
        "interleaved rounds; ratios are medians over rounds with smallest–largest. "
        "“A over B” is A's time in units of B's; “1 probe of 30” is the time of "
        "one, times thirty. "
        "FLOPs and temporary memory are XLA's and exist for JAX programs only.",
    ]
    for network in dict.fromkeys(table.network for table in results.tables):
        parts.append(f"## {network}")
        for table in results.tables:
            if table.network == network:
                parts += _table(table)
    if results.penalty_flops:
        names = list(next(iter(results.penalty_flops.values())))
        parts += [
            "## FLOPs of the penalty's gradient, in plain gradients",
            _grid(
                ["network", *names],
                [
                    [network, *(f"{counts[n]:.3f}" for n in names)]
                    for network, counts in results.penalty_flops.items()
                ],
            ),
        ]
    if results.memory:
        parts += [
            "## Temporary memory of Tr(F), one draw per example",
            _grid(
                ["network", "parameters", "examples", "program", "temp MiB"],
                [
                    [
                        m["network"],
                        f"{m['parameters']:,}",
                        f"{m['examples']:,}",
                        m["program"],
                        f"{m['temp_mib']:.1f}",
                    ]
                    for m in results.memory
                ],
            ),
        ]
    if results.accuracy:
        parts += _accuracy(results.accuracy)
    parts += [
        "## Targets",
        _grid(
            ["network", "what", "target", "measured", "min–max", ""],
            [
                [
                    t.network,
                    t.name,
                    f"≤ {t.limit:g}",
                    _digits(t.value),
                    f"{t.low:.2f}–{t.high:.2f}" if t.low != t.high else "",
                    "met" if t.is_met else "MISSED",
                ]
                for t in results.targets
            ],
        ),
    ]
    if results.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in results.notes)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> list[str]:
    columns = ["program", "ms", "ratio", "min–max", "rounds", "GFLOP", "temp MiB"]
    return [
        f"### {table.title}",
        f"Ratios to “{table.reference}”.",
        _grid(columns, [_cells(row) for row in table.rows]),
    ]


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.milliseconds:.1f}",
        f"{row.ratio.median:.3f}",
        f"{row.ratio.low:.2f}–{row.ratio.high:.2f}",
        str(row.ratio.rounds),
        "" if row.gflop is None else f"{row.gflop:.2f}",
        "" if row.temp_mib is None else f"{row.temp_mib:.0f}",
    ]


def _accuracy(rows: list[Accuracy]) -> list[str]:
    parts = [
        "## Accuracy per cost",
        "Relative error of one draw times √(its FLOPs in gradients), the "
        "error for the price of one gradient, smaller is better; in brackets the "
        "error itself. Digits, 64 examples. The exact Tr(F) has no error, and for "
        "the networks with ReLU it is Tr(H) too.",
    ]
    for network in dict.fromkeys(row.network for row in rows):
        here = [row for row in rows if row.network == network]
        stages = dict.fromkeys((row.stage, row.loss) for row in here)
        names = dict.fromkeys((row.estimator, row.gradients) for row in here)
        values = {
            (row.estimator, row.stage): f"{row.product:.3f} ({row.relative_error:.3f})"
            for row in here
        }
        grid = [
            [name, f"{cost:.2f}", *(values[name, stage] for stage, _ in stages)]
            for name, cost in names
        ]
        titles = [f"{stage}, loss {loss:.2g}" for stage, loss in stages]
        parts += [f"### {network}", _grid(["estimator", "gradients", *titles], grid)]
    return parts


def _digits(value: float) -> str:
    """Enough digits that a narrow miss shows."""
    return f"{value:.4f}"


def _grid(header: list[str], rows: list[list[str]]) -> str:
    filled = [i for i in range(len(header)) if not rows or any(r[i] for r in rows)]
    lines = [[cells[i] for i in filled] for cells in (header, *rows)]
    lines.insert(1, ["---"] * len(filled))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    for name in RESULTS:
        write(read(FOLDER / name), FOLDER / name)
