"""Figure 3: the penalty switched on later and later."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import (
    REFERENCES,
    Setting,
    best_runs,
    one_version,
    settings_of,
)
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import correlated
from fisher_jax.report.statistics import summarise

# Has η* and the baseline of the same settings.
TABLE_1 = ("table1", "cifar10_simplecnn_fp")


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, final=True)
    columns = 2 if len(settings) == 4 else 3
    figure, all_axes = canvas.new_panels(len(settings), height=2.1, columns=columns)
    for axes, setting in zip(all_axes, settings, strict=True):
        _draw_onset(axes, setting)
        for method in REFERENCES:
            _draw_reference(axes, setting, runs, method)
        axes.set_title(canvas.plain(setting.title))
        axes.set_xlabel("epoch at which FP starts")
        axes.set_ylabel("final test accuracy, %")
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return canvas.drawing_of(figure, settings)


def onset_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns start_epoch, mean, std and n of final test accuracy in %."""
    penalised = rows[~rows["method"].isin(REFERENCES)]
    means = []
    for start, group in penalised.groupby("start_epoch", sort=True):
        values = 100 * group["test_accuracy"].astype(float)
        if (summary := summarise(list(values))) is not None:
            means.append((float(start), *summary))
    return pd.DataFrame(means, columns=["start_epoch", "mean", "std", "n"])


def _draw_onset(axes: Axes, setting: Setting) -> None:
    means = onset_means(setting.rows)
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


def _draw_reference(axes: Axes, setting: Setting, runs: Runs, method: str) -> None:
    rows = setting.of(method)
    if not len(rows):
        table = runs.rows
        label = setting.rows["setting_label"].iloc[0]
        same = (table["setting_label"] == label) & (table["form"] == setting.form)
        is_method = table["experiment"].isin(TABLE_1) & (table["method"] == method)
        rows = best_runs(one_version(table[same & is_method]).rows).rows
    values = [100 * v for v in rows["test_accuracy"].astype(float)]
    if (summary := summarise(values)) is None:
        return
    line = canvas.method_line(method)
    canvas.draw_level(axes, summary, label=canvas.method_text(method), **line)


def _falls(setting: Setting, runs: Runs) -> Decision | None:
    penalised = setting.rows[~setting.rows["method"].isin(REFERENCES)]
    return correlated(
        setting._replace(rows=penalised),
        runs,
        x="start_epoch",
        y="test_accuracy",
        varied="start_epoch",
        sign=-1,
    )


ITEM = Item(
    name="Figure 3",
    title="Test accuracy by the epoch at which FP is switched on",
    place="section 4",
    experiments=("fig03",),
    figure=FigurePart(
        _draw,
        "Test accuracy at the last epoch against the epoch from which FP is on, mean "
        "and one standard deviation over seeds. Lines with bands of one standard "
        "deviation: η* and the baseline without a penalty, at the last epoch too, from "
        "runs of this experiment or else of table 1.",
        "Accuracy against the onset epoch on a logarithmic axis, with horizontal lines "
        "for η* and the baseline.",
    ),
    claims=(Claim("The later FP is switched on, the less it helps.", _falls),),
)
