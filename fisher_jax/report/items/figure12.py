"""Figure 12: what is learnt of right labels by the time wrong ones are memorised."""

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.shapes.coefficients import SPREAD, coefficient_groups
from fisher_jax.report.shapes.memorisation import noisy_settings


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing | str:
    settings = noisy_settings(rows)[:3]
    if not settings:
        return "no runs with noisy labels"
    figure, all_axes = canvas.new_figure(1, len(settings), height=2.3)
    coefficients = pd.concat([s.runs["coefficient"] for s in settings]).dropna()
    colours = canvas.coefficient_colours(figure, all_axes, list(coefficients))
    for axes, setting in zip(all_axes[0], settings, strict=True):
        for group, line in coefficient_groups(setting.runs, colours):
            noisy, clean = (
                canvas.mean_curve(
                    group, runs.metrics, f"train/{kind}_accuracy", factor=100
                )
                for kind in ("noisy", "clean")
            )
            if noisy is not None and clean is not None:
                axes.plot(noisy.mean, clean.mean, marker="o", markersize=2, **line)
        axes.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.7, zorder=0)
        axes.set_title(canvas.plain(setting.title))
        axes.set_xlabel("accuracy on noisy examples, %")
        axes.set_ylabel("accuracy on clean examples, %")
    canvas.legend_below(figure, *all_axes.flat)
    count = sum(len(setting.runs) for setting in settings)
    return Drawing(figure, count, canvas.notes_of(settings))


ITEM = Item(
    name="Figure 12",
    title="Training accuracy on clean against noisy examples, by coefficient of FP",
    place="appendix A.3",
    experiments=("table3", "digits_fp"),
    figure=FigurePart(
        _draw,
        "Training accuracy on clean against noisy examples, a point for each record. "
        f"Above the grey diagonal right labels are learnt first. {SPREAD} Dashed grey: "
        "no penalty.",
        "Paths of clean against noisy training accuracy, one for each coefficient.",
    ),
)
