"""Right labels learnt and wrong ones memorised, a curve for each coefficient of FP."""

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, accuracy_metric, settings_of
from fisher_jax.report.collect import Runs
from fisher_jax.report.names import position
from fisher_jax.report.shapes.coefficients import SPREAD, draw_coefficients

CAPTION = (
    "Norms of the mean gradient over clean and over noisy training examples, their "
    "ratio and cosine; training accuracy on both; validation accuracy. Dashed grey: no "
    f"penalty. {SPREAD} Not smoothed."
)
ALT = (
    "Six panels against epoch: gradient norms of clean and noisy examples, their ratio "
    "and cosine, training accuracy on both kinds, validation accuracy; a line for each "
    "coefficient."
)
# The paper's first network, then its second.
_MODELS = ("vgg11", "simple_cnn", "wide_resnet", "resnet", "densenet")


def noisy_settings(rows: pd.DataFrame) -> list[Setting]:
    """Returns the settings with noisy labels, at the noise nearest to the paper's 25%.

    Their runs with FP, those of the search too, and without a penalty.
    """
    rows = rows[(rows["noise"] > 0) & rows["method"].isin(("fp", "baseline"))]
    settings = []
    for setting in settings_of(rows) if len(rows) else []:
        noise = min(set(setting.runs["noise"]), key=lambda share: abs(share - 0.25))
        kept = setting.runs[setting.runs["noise"] == noise]
        title = f"{setting.title}, {100 * noise:g}% noise"
        settings.append(setting._replace(runs=kept, title=title))
    return sorted(settings, key=lambda s: position(_model(s), _MODELS)[0])


def _model(setting: Setting) -> str:
    return str(setting.runs["model"].iloc[0])


def draw_memorisation(rows: pd.DataFrame, runs: Runs, *, network: int) -> Drawing | str:
    """Draws six panels of the first (0) or second (1) network with noisy labels."""
    settings = noisy_settings(rows)
    if len(settings) <= network:
        return "no second network with noisy labels" if settings else "no noisy labels"
    setting = settings[network]
    figure, all_axes = canvas.new_figure(2, 3, height=1.7)
    coefficients = list(setting.runs["coefficient"].dropna())
    colours = canvas.coefficient_colours(figure, all_axes, coefficients)
    accuracy = accuracy_metric(setting.runs, runs.metrics)
    runs = _with_ratio(setting.runs, runs)
    views = (
        ("gradient/clean_norm", "‖g_clean‖", 1.0, "log"),
        ("gradient/noisy_norm", "‖g_noisy‖", 1.0, "log"),
        ("gradient/ratio", "‖g_noisy‖ / ‖g_clean‖", 1.0, "log"),
        ("gradient/cosine", "cosine(g_clean, g_noisy)", 1.0, "linear"),
        ("train/clean_accuracy", "training accuracy, %", 100.0, "linear"),
        (accuracy, f"{accuracy.split('/')[0]} accuracy, %", 100.0, "linear"),
    )
    for axes, (name, label, factor, scale) in zip(all_axes.flat, views, strict=True):
        axes.set_yscale(scale)
        draw_coefficients(axes, setting.runs, runs, name, colours, factor)
        canvas.label_axes(axes, "", "epoch", label)
    both = all_axes[1, 1]
    noisy = "train/noisy_accuracy"
    draw_coefficients(both, setting.runs, runs, noisy, colours, 100, linestyle=":")
    both.set_title("clean: lines, noisy: dots")
    for axes in all_axes.flat:
        canvas.mark_empty(axes)
    figure.suptitle(canvas.plain(setting.title))
    canvas.legend_below(figure, *all_axes.flat)
    return Drawing(figure, len(setting.runs), setting.notes)


def _with_ratio(rows: pd.DataFrame, runs: Runs) -> Runs:
    """The runs with gradient/ratio, noisy over clean, in a copy of their records."""
    metrics = dict(runs.metrics)
    for index in rows.index:
        frame = metrics[index]
        if {"gradient/clean_norm", "gradient/noisy_norm"} <= set(frame):
            clean = frame["gradient/clean_norm"].where(frame["gradient/clean_norm"] > 0)
            ratio = frame["gradient/noisy_norm"] / clean
            metrics[index] = frame.assign(**{"gradient/ratio": ratio})
    return runs._replace(metrics=metrics)
