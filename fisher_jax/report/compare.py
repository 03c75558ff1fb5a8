"""Any runs over each other: their curves, their results, what they differ in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from fisher_jax.report import canvas
from fisher_jax.run_files import RunFiles, find_runs, flatten, read_run, series

# Okabe and Ito's palette: told apart with any colour vision, and in grey by its order.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


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


class Differences(NamedTuple):
    """Rows of a table: a name and its value in each run, as text."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    is_different: tuple[bool, ...]


def read_all(directories: Sequence[Path]) -> dict[str, RunFiles]:
    """Reads the runs in and below the folders, by the shortest names that differ.

    Raises:
        UserError: a folder does not exist or holds no run.
    """
    found = list(dict.fromkeys(run for d in directories for run in find_runs([d])))
    return dict(zip(short_names(found), map(read_run, found), strict=True))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Returns as many last parts of each path as it takes to tell all apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def config_differences(runs: dict[str, RunFiles]) -> Differences:
    """Returns the configuration keys, versions and devices in which runs differ."""
    flat = [_described(run) for run in runs.values()]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [(key, tuple(one.get(key, "–") for one in flat)) for key in keys]
    kept = tuple(row for row in rows if len(set(row[1])) > 1)
    return Differences(tuple(runs), kept, (True,) * len(kept))


def result_rows(runs: dict[str, RunFiles]) -> Differences:
    """Returns every value of result.json, and whether runs differ in it."""
    keys = dict.fromkeys(key for run in runs.values() for key in run.result)
    rows = []
    for key in keys:
        values = tuple(_shown(run.result.get(key)) for run in runs.values())
        rows.append((key, values))
    state = tuple(_state(run) for run in runs.values())
    rows.insert(0, ("records", state))
    different = tuple(len(set(values)) > 1 for _, values in rows)
    return Differences(tuple(runs), tuple(rows), different)


def draw_runs(
    runs: Mapping[str, RunFiles],
    metrics: Sequence[Metric] = METRICS,
    title: str = "",
) -> Figure | None:
    """Returns a panel for each metric that any run has; None if there is none.

    One line a run, by name in the legend; beyond seven runs from blue to red.
    """
    recorded = [
        metric
        for metric in metrics
        if any(any(np.isfinite(_values(run, metric)[1])) for run in runs.values())
    ]
    if not recorded:
        return None
    colours: Sequence[Any] = COLOURS
    if len(runs) > len(COLOURS):
        colours = list(canvas.ordered_colours(range(len(runs))).values())
    with canvas.style():
        figure, panels = canvas.new_panels(len(recorded), height=1.9)
        for axes, metric in zip(panels, recorded, strict=True):
            for index, (name, run) in enumerate(runs.items()):
                epochs, values = _values(run, metric)
                marker = canvas.MARKERS[index % len(canvas.MARKERS)]
                axes.plot(
                    epochs,
                    metric.factor * values,
                    color=colours[index],
                    marker=marker if len(values) < 12 else "",
                    ms=2.5,
                    label=canvas.plain(name),
                )
            axes.set_yscale(metric.scale)
            canvas.label_axes(axes, metric.label, "epoch", "")
        lines = canvas.legend_below(figure, panels[0])
        figure.set_figheight(figure.get_figheight() + 0.16 * lines)
        figure.suptitle(title)
        canvas.finish(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes PNG or PDF, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with canvas.style():
        figure.savefig(path)


def _values(run: RunFiles, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    epochs, values = series(run, metric.name)
    numbers = [v if isinstance(v, int | float) else np.nan for v in values]
    array = np.array(numbers, float)
    if metric.scale == "log":
        array = np.where(array > 0, array, np.nan)
    return np.array(epochs, float), array


def _state(run: RunFiles) -> str:
    last = run.records[-1]["epoch"] if run.records else 0
    unreadable = f", {run.unreadable_lines} unreadable" if run.unreadable_lines else ""
    return f"{len(run.records)} to epoch {last:g}{unreadable}"


def _described(run: RunFiles) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name in ("config", "versions"):
        content = run.config.get(name)
        prefix = "" if name == "config" else "versions."
        values = flatten(content if isinstance(content, dict) else {}, prefix)
        flat |= {key: _shown(value) for key, value in values.items()}
    for name in ("git_commit", "device_kind", "device_count", "label_noise_hash"):
        if name in run.config:
            flat[name] = _shown(run.config[name])
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
