"""The penalty switched on later and later: figure 3."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report.choose import for_cell
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import SPECS

REFERENCES = ("eta_star", "baseline")
_TABLE_1 = SPECS[0].experiments


def figure_3(runs: Runs) -> Drawing | str:
    """Final accuracy against the epoch at which FP is switched on."""
    rows = canvas.run_rows(runs, ("fig03",))
    if not len(rows):
        return "no runs of fig03"
    panels = canvas.panels_of(rows)
    columns = 2 if len(panels) == 4 else 3
    figure, all_axes = canvas.new_panels(len(panels), height=2.1, columns=columns)
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_onset(axes, panel)
        for method in REFERENCES:
            _draw_reference(axes, panel, runs, method)
        axes.set_title(panel.title)
        axes.set_xlabel("epoch at which FP starts")
        axes.set_ylabel("final test accuracy, %")
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return Drawing(
        "figure3",
        "The later the penalty starts, the less it helps",
        figure,
        "Final test accuracy against the epoch from which FP is on, mean and one "
        "standard deviation over seeds. Lines with bands: η* and the baseline without "
        "a penalty, from runs of this experiment or else of table 1.",
        "Accuracy against the onset epoch on a logarithmic axis, falling to the right "
        "if the paper's claim holds, with horizontal lines for η* and baseline.",
        ("fig03",),
        len(rows),
        canvas.notes_of(panels),
    )


def onset_means(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns start_epoch, mean, std and n of final test accuracy in %."""
    penalised = runs[~runs["method"].isin(REFERENCES)]
    rows = []
    for start, group in penalised.groupby("start_epoch", sort=True):
        values = 100 * group["test_accuracy"].astype(float)
        if (summary := summarise(list(values))) is not None:
            rows.append((float(start), *summary))
    return pd.DataFrame(rows, columns=["start_epoch", "mean", "std", "n"])


def _draw_onset(axes: Axes, panel: Panel) -> None:
    means = onset_means(panel.runs)
    if not len(means):
        return
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.errorbar(
        means["start_epoch"],
        means["mean"],
        yerr=np.nan_to_num(means["std"]),
        marker="o",
        color=canvas.METHOD_STYLES["fp"][0],
        label="FP from this epoch on",
    )
    axes.set_xticks(means["start_epoch"], [f"{e:g}" for e in means["start_epoch"]])
    axes.minorticks_off()


def _draw_reference(axes: Axes, panel: Panel, runs: Runs, method: str) -> None:
    rows = panel.runs[panel.runs["method"] == method]
    if not len(rows):
        table = runs.table
        label, is_small = panel.runs[["setting_label", "is_small"]].iloc[0]
        same = (table["setting_label"] == label) & (table["is_small"] == is_small)
        is_method = table["experiment"].isin(_TABLE_1) & (table["method"] == method)
        rows = for_cell(table[same & is_method]).runs
    values = [100 * v for v in rows["test_accuracy"].astype(float)]
    if (summary := summarise(values)) is None:
        return
    line = canvas.method_line(method)
    canvas.draw_level(axes, summary, label=canvas.method_text(method), **line)
