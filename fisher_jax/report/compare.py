"""Any runs over each other: their curves, their results, what they differ in."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fisher_jax.errors import UserError
from fisher_jax.report import canvas
from fisher_jax.report.collect import describe
from fisher_jax.report.names import QUANTITIES
from fisher_jax.report.statistics import half_width, summarise
from fisher_jax.run_files import (
    RunFiles,
    find_runs,
    flatten,
    numeric_records,
    read_run,
)


class Metric(NamedTuple):
    """One metric, how its panel is named and scaled, and a factor (100 for percent)."""

    name: str
    label: str
    scale: str = "linear"
    factor: float = 1.0


METRICS = (
    Metric("train/loss", "training loss", "log"),
    Metric("train/accuracy", "training accuracy, %", factor=100),
    Metric("validation/accuracy", "validation accuracy, %", factor=100),
    Metric("test/accuracy", "test accuracy, %", factor=100),
    Metric("trace/fisher", "Tr(F)", "log"),
    Metric("trace/hessian", "Tr(H)", "log"),
    Metric("train/noisy_accuracy", "wrong labels memorised, %", factor=100),
    Metric("gradient/cosine", "cosine(g_clean, g_noisy)"),
    Metric("penalty/value", "penalty", "log"),
)

_LABELS = {key: (label, factor) for key, label, factor in QUANTITIES}
# Of config.json, besides the configuration.
_SURROUNDINGS = {
    "git_commit": "commit",
    "device_kind": "device",
    "device_count": "devices",
    "label_noise_hash": "hash of the label noise",
}

# Runs by name; those under one name differ in their seed alone.
Groups = Mapping[str, Sequence[RunFiles]]


class Differences(NamedTuple):
    """Rows of a table: a name and its value in each group of runs, as text."""

    rows: tuple[tuple[str, tuple[str, ...]], ...]
    is_different: tuple[bool, ...]


def read_all(
    directories: Sequence[Path],
) -> tuple[dict[str, list[RunFiles]], list[Path]]:
    """Reads the runs in and below the folders, those of one configuration together.

    Runs of the same code that differ in their seed alone are one group. The same run
    twice, as a run and its repetition, is two groups.

    Returns:
        The groups, by the shortest names that differ, and the paths without a run.

    Raises:
        UserError: a path does not exist, or none holds a run.
    """
    found: dict[Path, None] = {}
    skipped = []
    for directory in directories:
        try:
            found |= dict.fromkeys(find_runs([directory]))
        except UserError:
            if not directory.exists() or len(directories) == 1:
                raise
            skipped.append(directory)
    if not found:
        raise UserError(f"no runs in {', '.join(map(str, directories))}")
    copies: Counter[Any] = Counter()
    groups: dict[Any, list[RunFiles]] = {}
    for path in found:
        run = read_run(path)
        row = describe(run, [])
        # Without a configuration nothing says that two runs are of one.
        is_known = row["candidate"] != "{}"
        kind = (row["candidate"], row["version"]) if is_known else path
        copies[kind, row["seed"]] += 1
        groups.setdefault((kind, copies[kind, row["seed"]]), []).append(run)
    names = _names(list(groups.values()))
    return dict(zip(names, groups.values(), strict=True)), skipped


def _names(groups: Sequence[Sequence[RunFiles]]) -> list[str]:
    """The shortest paths that differ; without the seed where there are several."""
    shortest = short_names([group[0].directory for group in groups])
    plain = [
        re.sub(r"[-_.]?seed[-_=]?\d+", "", name) if len(group) > 1 else name
        for name, group in zip(shortest, groups, strict=True)
    ]
    return plain if len(set(plain)) == len(plain) and all(plain) else shortest


def short_names(paths: Sequence[Path]) -> list[str]:
    """Returns as many last parts of each path as it takes to tell all apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def config_differences(groups: Groups) -> Differences:
    """Returns the configuration keys, versions and devices in which groups differ."""
    flat = [[_described(run) for run in runs] for runs in groups.values()]
    keys = dict.fromkeys(key for runs in flat for one in runs for key in one)
    rows = []
    for key in keys:
        values = tuple(_listed(one.get(key, "–") for one in runs) for runs in flat)
        if len(set(values)) > 1:
            rows.append((key, values))
    return Differences(tuple(rows), (True,) * len(rows))


def result_rows(groups: Groups) -> Differences:
    """Returns every value of result.json, and whether groups differ in it.

    Of several seeds the mean ± half its 95% Student-t interval over those that have it,
    their number in brackets where it is not all of them.
    """
    runs = [run for group in groups.values() for run in group]
    rows = [("last epoch", tuple(_words(map(_state, g)) for g in groups.values()))]
    recorded = (k for run in runs for k, v in run.result.items() if v is not None)
    for key in dict.fromkeys(recorded):
        label, factor = _LABELS.get(key, (key, 1.0))
        values = tuple(_averaged(group, key, factor) for group in groups.values())
        rows.append((label, values))
    different = tuple(len(set(values)) > 1 for _, values in rows)
    return Differences(tuple(rows), different)


def _listed(texts: Iterable[str]) -> str:
    """Each text once; of long ones, as the hashes of label noise, their number."""
    distinct = list(dict.fromkeys(texts))
    text = ", ".join(distinct)
    return text if len(distinct) == 1 or len(text) < 60 else f"{len(distinct)} values"


def _averaged(group: Sequence[RunFiles], key: str, factor: float) -> str:
    values = [run.result.get(key) for run in group]
    given = [value for value in values if value is not None]
    if not given or any(isinstance(v, bool | str | list | dict) for v in given):
        return _words(map(_shown, values))
    summary = summarise([factor * value for value in given])
    if summary is None:
        return "–"
    count = "" if summary.n == len(group) else f" (n = {summary.n})"
    if len(set(given)) == 1:
        return f"{_shown(factor * given[0] if factor != 1 else given[0])}{count}"
    spread = f" ± {_plain(half_width(summary), 2)}"
    return f"{_plain(summary.mean, 4)}{spread}{count}"


def _plain(value: float, digits: int) -> str:
    """So many digits, and no power of ten for what is large: 1300, not 1.3e+03."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def _words(texts: Iterable[str]) -> str:
    """Each text once, with how often it is there unless all are the same."""
    counts = Counter(texts)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} × {text}" for text, count in counts.items())


def draw_runs(
    groups: Groups, metrics: Sequence[Metric] = METRICS, title: str = ""
) -> Figure | None:
    """Returns a panel for each metric that any run has; None if there is none.

    One line a group, by name in the legend: the mean over its runs, with a band of one
    standard deviation.
    """
    records = [[numeric_records(run) for run in runs] for runs in groups.values()]
    tables: list[pd.DataFrame] = []
    frames: dict[int, pd.DataFrame] = {}
    for runs, of_runs in zip(groups.values(), records, strict=True):
        first = len(frames)
        frames |= {first + i: pd.DataFrame(rows) for i, rows in enumerate(of_runs)}
        rows = [describe(run, rows) for run, rows in zip(runs, of_runs, strict=True)]
        tables.append(pd.DataFrame(rows, index=range(first, len(frames))))
    curves: dict[Metric, list[canvas.Curve | None]] = {}
    for metric in metrics:
        drawn = [_curve(table, frames, metric) for table in tables]
        if any(curve is not None for curve in drawn):
            curves[metric] = drawn
    if not curves:
        return None
    lines = canvas.distinct_lines(len(groups))
    with canvas.style():
        figure, panels = canvas.new_panels(len(curves), height=1.9)
        for axes, (metric, drawn) in zip(panels, curves.items(), strict=True):
            axes.set_yscale(metric.scale)
            entries = zip(groups, drawn, lines, strict=True)
            for index, (name, curve, line) in enumerate(entries):
                few = curve is not None and len(curve.x) < 12
                marker = canvas.MARKERS[index % len(canvas.MARKERS)] if few else ""
                line |= {"marker": marker, "ms": 2.5, "label": canvas.plain(name)}
                canvas.draw_curve(axes, curve, **line)
            canvas.label_axes(axes, metric.label, "epoch", "")
        num_lines = canvas.legend_below(figure, *panels)
        figure.set_figheight(figure.get_figheight() + 0.16 * num_lines)
        figure.suptitle(title)
        canvas.finish(figure)
    return figure


def _curve(
    table: pd.DataFrame, frames: Mapping[int, pd.DataFrame], metric: Metric
) -> canvas.Curve | None:
    curve = canvas.mean_curve(table, frames, metric.name, factor=metric.factor)
    if curve is None or metric.scale != "log":
        return curve
    is_shown = curve.mean > 0
    if not is_shown.any():
        return None
    return curve._replace(mean=np.where(is_shown, curve.mean, np.nan))


def save_figure(figure: Figure, path: Path) -> None:
    """Writes PNG or PDF, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with canvas.style():
        figure.savefig(path)


def _state(run: RunFiles) -> str:
    last = run.records[-1]["epoch"] if run.records else 0
    count = run.unreadable_lines
    return f"{last:g}" + (f", {count} unreadable records" if count else "")


def _described(run: RunFiles) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name in ("config", "versions"):
        content = run.config.get(name)
        prefix = "" if name == "config" else "version of "
        values = flatten(content if isinstance(content, dict) else {}, prefix)
        flat |= {key: _shown(value) for key, value in values.items()}
    for name, label in _SURROUNDINGS.items():
        if name in run.config:
            flat[label] = _shown(run.config[name])[:12]  # commits and hashes are long
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
