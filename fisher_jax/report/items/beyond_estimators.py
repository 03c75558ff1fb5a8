"""Beyond the paper: the errors of estimators of Tr(F) and Tr(H) along training."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, settings_of
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item, TablePart
from fisher_jax.report.names import in_method_order, method_label
from fisher_jax.report.tables import Row, Table

ESTIMATORS = "estimator/"  # before an estimator's name: its relative error
LABELS = {
    "fisher_labels": "Tr(F), sampled labels",
    "fisher_rademacher": "Tr(F), signs",
    "fisher_importance": "Tr(F), labels by importance",
    "minibatch_labels": "Tr(F), sampled labels, minibatch form",
    "minibatch_rademacher": "Tr(F), signs, minibatch form",
    "fisher_forward": "Tr(F), forward mode",
    "hessian_gaussian": "Tr(H), Gaussian probes",
    "hessian_rademacher": "Tr(H), sign probes",
    "hessian_forward": "Tr(H), sign probes, forward mode",
}
_COLOURS = tuple(colour for colour, _ in canvas.METHOD_STYLES.values())


def _by_method(rows: pd.DataFrame) -> list[Setting]:
    """Each method by itself, as each learning rate takes its own course of losses."""
    return [
        setting._replace(
            title=f"{setting.title}, {method_label(method)}",
            rows=setting.of(method),
        )
        for setting in settings_of(rows)
        for method in in_method_order(setting.rows["method"])
    ]


def _estimators(rows: pd.DataFrame, metrics: Mapping[int, pd.DataFrame]) -> list[str]:
    """Returns the metrics that are errors of estimators, in their recorded order."""
    names = dict.fromkeys(str(name) for index in rows.index for name in metrics[index])
    names.pop(f"{ESTIMATORS}exact", None)  # the value itself
    return [name for name in names if name.startswith(ESTIMATORS)]


def _label(name: str) -> str:
    key = name.removeprefix(ESTIMATORS)
    return LABELS.get(key, key)


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = _by_method(rows)
    figure, all_axes = canvas.new_panels(len(settings), height=2.6, columns=2)
    names = _estimators(rows, runs.metrics)
    for axes, setting in zip(all_axes, settings, strict=True):
        axes.set_yscale("log")
        for index, name in enumerate(names):
            curve = canvas.mean_curve(setting.rows, runs.metrics, name)
            marker = canvas.MARKERS[index % len(canvas.MARKERS)]
            colour, label = _COLOURS[index % len(_COLOURS)], canvas.plain(_label(name))
            canvas.draw_curve(
                axes, curve, marker=marker, ms=2.5, color=colour, label=label
            )
        axes.set_title(canvas.plain(setting.title))
        axes.set_xlabel("epoch")
        axes.set_ylabel("relative error")
        canvas.mark_empty(axes)
    canvas.legend_below(figure, *all_axes)
    return canvas.drawing_of(figure, settings)


def _fill(rows: pd.DataFrame, runs: Runs) -> Table:
    """The relative error of each estimator, median and worst over the records."""
    lines = []
    settings = _by_method(rows)
    for setting in settings:
        frames = [runs.metrics[index] for index in setting.rows.index]
        for name in _estimators(setting.rows, runs.metrics):
            errors = pd.concat([f[name] for f in frames if name in f]).dropna()
            if len(errors):
                median, largest = float(np.median(errors)), float(errors.max())
                cells = (_percent(median), _percent(largest), str(len(errors)))
                lines.append(Row(setting.title, (_label(name), *cells)))
    columns = ("estimator", "median error", "largest error", "records")
    return Table(columns, tuple(lines), len(rows), canvas.notes_of(settings))


def _percent(share: float) -> str:
    """Two digits, and all of the whole ones."""
    return f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.2g}"


ITEM = Item(
    name="Beyond the paper: estimators",
    title="Errors of the estimators of Tr(F) and Tr(H) at equal cost",
    place="",
    experiments=("beyond_estimators",),
    figure=FigurePart(
        _draw,
        "Error relative to the exact value on the same examples, each estimator at the "
        "cost of four gradients; means over runs, bands one standard deviation.",
        "Relative error on a logarithmic axis against epoch, a line for each "
        "estimator, a panel for each network and learning rate.",
    ),
    table=TablePart(
        _fill,
        "Relative error in % against the exact value, at the cost of four gradients: "
        "median and largest over all records of all runs.",
    ),
)
