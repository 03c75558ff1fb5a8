"""Figure 1: validation accuracy and Tr(F) for a large and a small learning rate."""

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import ROOT_REASON, Drawing
from fisher_jax.report.choose import (
    Setting,
    accuracies,
    accuracy_metric,
    settings_of,
)
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, larger, ratio_below
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.values import by_seed, extremes


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, final=True)
    figure, all_axes = canvas.new_figure(len(settings), 2, height=2.0)
    for setting, (left, right) in zip(settings, all_axes, strict=True):
        colours = canvas.ordered_colours(list(setting.rows["learning_rate"]))
        accuracy = accuracy_metric(setting.rows, runs.metrics)
        # The large rate is good, as the paper draws it: blue for large, red for small.
        flipped = dict(zip(colours, reversed(list(colours.values())), strict=True))
        for rate, group in setting.rows.groupby("learning_rate", sort=True):
            line = {"color": flipped[rate], "label": f"η = {rate:.3g}"}
            curve = canvas.mean_curve(group, runs.metrics, accuracy, factor=100)
            canvas.draw_curve(left, curve, **line)
            curve = canvas.mean_curve(group, runs.metrics, "trace/fisher")
            canvas.draw_curve(right, curve, **line)
        word = accuracy.split("/")[0]
        canvas.label_axes(left, setting.title, "epoch", f"{word} accuracy, %")
        canvas.label_axes(right, setting.title, "epoch", "Tr(F)")
        canvas.start_at_zero(right)
        canvas.add_root_axis(right)
        left.legend()
    return canvas.drawing_of(figure, settings)


def _peaks_higher(setting: Setting, runs: Runs) -> Decision | None:
    both = extremes(setting, "learning_rate", "largest")
    if both is None:
        return None
    large, small = (by_seed(rows, rows["max_fisher_trace"]) for _, rows in both)
    return ratio_below(large, small, 1.0, names=(both[0][0], both[1][0]))


def _generalises_worse(setting: Setting, runs: Runs) -> Decision | None:
    both = extremes(setting, "learning_rate", "largest")
    if both is None:
        return None
    large, small = (by_seed(rows, accuracies(rows)) for _, rows in both)
    return larger(large, small, names=(both[0][0], both[1][0]))


ITEM = Item(
    name="Figure 1",
    title="Accuracy and Tr(F) along training, for two learning rates",
    place="section 1",
    experiments=("fig01",),
    figure=FigurePart(
        _draw,
        "Accuracy and Tr(F) against epoch for two learning rates. Lines are means over "
        f"seeds, bands one standard deviation. Not smoothed. {ROOT_REASON}",
        "Two panels against epoch: accuracy on the left and Tr(F) on the right, a line "
        "for each of the two learning rates.",
        shows_fisher_trace=True,
    ),
    claims=(
        Claim(
            "The smaller learning rate lets Tr(F) rise higher after epoch 1.",
            _peaks_higher,
        ),
        Claim(
            "The smaller learning rate generalises worse.",
            _generalises_worse,
        ),
    ),
)
