"""Any sweep that is not the paper's: a row and a curve for each configuration."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    accuracy_metric,
    final_stage,
    join_notes,
    one_version,
    unfinished_note,
)
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item, TablePart, all_items
from fisher_jax.report.names import QUANTITIES
from fisher_jax.report.statistics import half_width, summarise
from fisher_jax.report.tables import Row, Table
from fisher_jax.run_files import FINISHED

SHOWN = (
    "test_accuracy",
    "best_validation_accuracy",
    "test_accuracy_at_best_validation",
    "final_train_accuracy",
    "final_train_noisy_accuracy",
    "max_fisher_trace",
)
MAX_CURVES = 12  # in a panel; with more no line can be told from its neighbours


class Configuration(NamedTuple):
    """The runs that differ in their seed alone, of one code version.

    Attributes:
        values: by the name of the axis, as text.
        rows: a row a run.
        notes: what was left out, and which runs have not finished.
    """

    values: dict[str, str]
    rows: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Returns "learning rate 0.01, width 32"."""
        words = (f"{name} {value}" for name, value in self.values.items())
        return ", ".join(words) or "all runs"


def sweeps_of(rows: pd.DataFrame) -> Iterator[tuple[str, list[Configuration]]]:
    """Yields the name and the configurations of each sweep that no other item takes.

    The axes are the keys of the configuration in which the sweep's runs differ, other
    than the seed and what cannot change results.
    """
    taken = {name for item in all_items().values() for name in item.experiments}
    own = rows[~rows["experiment"].isin(taken)]
    for (experiment, form), runs in own.groupby(["experiment", "form"], sort=True):
        name = str(experiment or "runs") + (f" ({form})" if form else "")
        yield name, configurations(final_stage(runs))


def configurations(rows: pd.DataFrame) -> list[Configuration]:
    """Groups runs that differ in their seed alone, in the order of the axes' values."""
    configs = {text: json.loads(text) for text in rows["candidate"].unique()}
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    axes = [
        key
        for key in keys
        if len({json.dumps(config.get(key)) for config in configs.values()}) > 1
    ]
    short = [axis.rpartition(".")[2] for axis in axes]
    names = [
        s.replace("_", " ") if short.count(s) == 1 else a
        for s, a in zip(short, axes, strict=True)
    ]
    ordered = sorted(configs, key=lambda text: [_order(configs[text], a) for a in axes])
    found = []
    for text in ordered:
        values = [_shown(configs[text].get(axis)) for axis in axes]
        chosen = one_version(rows[rows["candidate"] == text])
        by_axis = dict(zip(names, values, strict=True))
        found.append(Configuration(by_axis, chosen.rows, chosen.notes))
        notes = (*chosen.notes, *unfinished_note(chosen.rows))
        label = found[-1].label
        found[-1] = found[-1]._replace(notes=tuple(f"{label}: {n}" for n in notes))
    return found


def _fill(rows: pd.DataFrame, runs: Runs) -> Table | str:
    sweeps = list(sweeps_of(rows))
    together = [c for _, configurations in sweeps for c in configurations]
    if not together:
        return "no runs of a sweep of your own"
    axes = list(dict.fromkeys(axis for c in together for axis in c.values))
    used = pd.concat([c.rows for c in together])
    recorded = [q for q in QUANTITIES if q.key in SHOWN and used[q.key].notna().any()]
    columns = [*axes, "n"]
    for _, label, _ in recorded:
        columns += [label, f"± {label.removesuffix(', %')}"]
    lines = []
    for name, found in sweeps:
        for one in found:
            cells = [one.values.get(axis, "–") for axis in axes]
            finished = int(one.rows["status"].eq(FINISHED).sum())
            cells.append(str(finished))
            for quantity, _, factor in recorded:
                cells += _mean_and_interval(one.rows[quantity], factor)
            lines.append(Row(name, tuple(cells)))
    notes = join_notes([c.notes for c in together])
    return Table(tuple(columns), tuple(lines), len(used), notes, label="sweep")


def _mean_and_interval(values: pd.Series, factor: float) -> tuple[str, str]:
    summary = summarise([factor * v for v in values.astype(float)])
    if summary is None:
        return "–", "–"
    digits = ".2f" if factor == 100 else ".4g"
    mean = format(summary.mean, digits)
    return mean, format(half_width(summary), digits) if summary.n > 1 else "–"


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing | str:
    sweeps = list(sweeps_of(rows))
    if not sweeps:
        return "no runs of a sweep of your own"
    figure, all_axes = canvas.new_figure(len(sweeps), 2, height=2.4)
    notes: list[tuple[str, ...]] = []
    num_lines = 0
    for (name, found), (left, right) in zip(sweeps, all_axes, strict=True):
        drawn = _best(found)
        if len(drawn) < len(found):
            text = f"{name}: the best {len(drawn)} of {len(found)} configurations"
            notes.append((f"{text} by test accuracy are drawn",))
        every = pd.concat([one.rows for one in found])
        accuracy = accuracy_metric(every, runs.metrics)
        word = accuracy.split("/")[0]
        lines = canvas.distinct_lines(len(drawn))
        for one, line in zip(drawn, lines, strict=True):
            line = line | {"label": canvas.plain(one.label)}
            curve = canvas.mean_curve(one.rows, runs.metrics, accuracy, factor=100)
            canvas.draw_curve(left, curve, **line)
            curve = canvas.mean_curve(one.rows, runs.metrics, "trace/fisher")
            canvas.draw_curve(right, curve, **line)
        canvas.label_axes(left, name, "epoch", f"{word} accuracy, %")
        canvas.label_axes(right, name, "epoch", "Tr(F)")
        canvas.start_at_zero(right)
        for axes in (left, right):
            canvas.mark_empty(axes)
        handles, labels = left.get_legend_handles_labels()
        if handles:
            columns = 1 if max(map(len, labels)) > 40 else 2
            num_lines += -(-len(labels) // columns)
            left.legend(handles, labels, loc="upper left", bbox_to_anchor=(0, -0.28),
                        ncols=columns, borderaxespad=0)  # fmt: skip
    figure.set_figheight(figure.get_figheight() + 0.15 * num_lines)
    notes += [one.notes for _, found in sweeps for one in found]
    count = sum(len(one.rows) for _, found in sweeps for one in found)
    return Drawing(figure, count, join_notes(notes))


def _best(found: list[Configuration]) -> list[Configuration]:
    """All of them or, of too many, those of the best test accuracy, in their order."""
    if len(found) <= MAX_CURVES:
        return found
    means = [one.rows["test_accuracy"].astype(float).mean() for one in found]
    ranks = pd.Series(means).rank(ascending=False, method="first", na_option="bottom")
    return [one for one, rank in zip(found, ranks, strict=True) if rank <= MAX_CURVES]


def _order(config: dict[str, Any], axis: str) -> tuple[bool, float, str]:
    value = config.get(axis)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return False, float(value), ""
    return True, 0.0, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


ITEM = Item(
    name="Your sweeps",
    title="Each configuration, with its seeds averaged",
    place="",
    experiments=(),
    figure=FigurePart(
        _draw,
        "A line for each configuration: the mean over seeds, with a band of one "
        "standard deviation. Not smoothed.",
        "Two panels for each sweep, accuracy on the left and Tr(F) on the right, "
        "against epoch; a line for each configuration of the sweep.",
        shows_fisher_trace=True,
    ),
    table=TablePart(
        _fill,
        "Sweeps and single runs that are not the paper's. Columns after the sweep's "
        "name are the keys in which its configurations differ, then the number n of "
        "finished runs and means over them; ± is half the 95% Student-t interval of "
        "the mean.",
    ),
)
