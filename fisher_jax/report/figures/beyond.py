"""Beyond the paper: RFP beside its rivals, and the errors of the estimators."""

import numpy as np
import pandas as pd

from fisher_jax.report.choose import one_version, unfinished_note
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.names import method_label
from fisher_jax.report.quantities import DIVERGED
from fisher_jax.report.statistics import summarise

EXPERIMENT = "beyond_rfp"
_COLOURS = tuple(colour for colour, _ in canvas.METHOD_STYLES.values())
ESTIMATORS = "estimator/"  # before an estimator's name: its relative error
SETTING_KEYS = ["is_small", "setting_label", "sweep_setting", "noise"]


def accuracy_of(runs: pd.DataFrame) -> pd.Series:
    """Returns test accuracy in %, at the best validation epoch where there is one."""
    best = runs["test_accuracy_at_best_validation"].astype(float)
    return 100 * best.fillna(runs["test_accuracy"].astype(float))


def strength_of(runs: pd.DataFrame) -> pd.Series:
    """Returns α, or SAM's radius or mixup's β where that is the method's strength."""
    strength = runs["coefficient"].astype(float)
    strength = strength.where(strength > 0, runs["sam_radius"].astype(float))
    return strength.where(strength > 0, runs["mixup_beta"].astype(float))


def setting_title(keys: tuple[bool, str, str, float]) -> str:
    """Returns a setting's name with its noise and whether it is a small form."""
    is_small, label, _, noise = keys
    title = f"{label}, {100 * noise:g}% noise" + (" (small)" if is_small else "")
    return canvas.plain(title)


def figure_beyond_rfp(runs: Runs) -> Drawing | str:
    """Test accuracy against each method's strength, a panel for setting and noise."""
    rows = runs.table[runs.table["experiment"] == EXPERIMENT]
    if not len(rows):
        return f"no runs of {EXPERIMENT}"
    groups = list(rows.groupby(SETTING_KEYS))
    figure, all_axes = canvas.new_panels(len(groups), height=2.3)
    notes: list[str] = []
    for axes, (keys, group) in zip(all_axes, groups, strict=True):
        chosen = one_version(group)
        title = setting_title(keys)
        notes += [f"{title}: {note}" for note in chosen.notes]
        notes += [f"{title}: {note}" for note in unfinished_note(chosen.runs)]
        for method in canvas.in_method_order(list(chosen.runs["method"])):
            _draw_method(axes, chosen.runs, method)
        axes.set_xscale("log")
        # Three panels stand in a row, and a line would reach into the next one.
        axes.set_title(title.replace(", ", ",\n", 1))
        axes.set_xlabel("strength (α, or SAM's radius)")
        axes.set_ylabel("test accuracy, %")
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return Drawing(
        "beyond_rfp",
        "How strong may a penalty be? RFP beside FP and its rivals",
        figure,
        "Test accuracy (at the best validation epoch where there is one) against the "
        "strength of each method, mean and one standard deviation over seeds. Crosses "
        "at the bottom: runs that diverged. Line with band: no penalty.",
        "Accuracy against the strength on a logarithmic axis, a line for each method; "
        "where a line falls off the method has become too strong.",
        (EXPERIMENT,),
        len(rows),
        tuple(dict.fromkeys(notes)),
    )


def _draw_method(axes: canvas.Axes, runs: pd.DataFrame, method: str) -> None:
    group = runs[runs["method"] == method]
    line, label = canvas.method_line(method), canvas.method_text(method)
    strengths = strength_of(group)
    if not (strengths > 0).any():
        if (summary := summarise(list(accuracy_of(group)))) is not None:
            canvas.draw_level(axes, summary, label=label, **line)
        return
    points: list[tuple[float, float, float]] = []
    for strength in sorted(set(strengths[strengths > 0])):
        at_strength = group[strengths == strength]
        summary = summarise(list(accuracy_of(at_strength)))
        if summary is not None:
            points.append((strength, summary.mean, float(np.nan_to_num(summary.std))))
        if (at_strength["status"] == DIVERGED).any():
            axes.plot(
                strength,
                0.03,
                "x",
                ms=4,
                color=line["color"],
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
    if points:
        x, y, spreads = zip(*points, strict=True)
        axes.errorbar(x, y, yerr=spreads, marker="o", ms=3, label=label, **line)


def estimator_panels(runs: Runs) -> list[Panel]:
    """Returns the settings whose runs have recorded estimators' errors, by method.

    Each method by itself, as each learning rate takes its own course from loss to loss.
    """
    rows = runs.table[
        [
            any(str(name).startswith(ESTIMATORS) for name in runs.metrics[index])
            for index in runs.table.index
        ]
    ]
    panels = canvas.panels_of(rows) if len(rows) else []
    return [
        panel._replace(
            title=f"{panel.title}, {method_label(method)}",
            runs=panel.runs[panel.runs["method"] == method],
        )
        for panel in panels
        for method in canvas.in_method_order(list(panel.runs["method"]))
    ]


def figure_beyond_estimators(runs: Runs) -> Drawing | str:
    """The relative error of every estimator along training, by network and method."""
    panels = estimator_panels(runs)
    if not panels:
        return "no runs of beyond_estimators"
    figure, all_axes = canvas.new_panels(len(panels), height=2.6, columns=2)
    names = list(dict.fromkeys(n for p in panels for n in estimators_of(p, runs)))
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set_yscale("log")
        for place, name in enumerate(names):
            curve = canvas.mean_curve(panel.runs, runs.metrics, name)
            marker = canvas.MARKERS[place % len(canvas.MARKERS)]
            label = canvas.plain(name.removeprefix(ESTIMATORS).replace("_", " "))
            line = {"color": _COLOURS[place % len(_COLOURS)], "label": label}
            canvas.draw_curve(axes, curve, marker=marker, ms=2.5, **line)
        axes.set_title(panel.title.replace("), ", "),\n", 1))
        axes.set_xlabel("epoch")
        axes.set_ylabel("relative error")
    canvas.legend_below(figure, *all_axes)
    return Drawing(
        "beyond_estimators",
        "Which estimator of Tr(F) and Tr(H) to record",
        figure,
        "Error relative to the exact value on the same examples, each estimator at the "
        "cost of four gradients; means over runs, bands one standard deviation.",
        "Relative error on a logarithmic axis against epoch, a line for each "
        "estimator, a panel for each network and learning rate.",
        ("beyond_estimators",),
        sum(len(panel.runs) for panel in panels),
        canvas.notes_of(panels),
    )


def estimators_of(panel: Panel, runs: Runs) -> list[str]:
    """Returns the metrics that are errors of estimators, in their recorded order."""
    frames = [runs.metrics[index] for index in panel.runs.index]
    names = dict.fromkeys(str(name) for frame in frames for name in frame)
    names.pop(f"{ESTIMATORS}exact", None)  # the value itself
    return [name for name in names if name.startswith(ESTIMATORS)]
