"""Right labels learnt and wrong ones memorised, a curve for each coefficient of FP."""

from functools import partial

import numpy as np
import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, accuracy_metric, settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, ratio_below
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.names import position
from fisher_jax.report.shapes.coefficients import (
    SPREAD,
    coefficient_groups,
    draw_coefficients,
)
from fisher_jax.report.values import by_seed

CAPTION = (
    "25% of the labels are noisy. Above: norms of the mean gradient over clean "
    "examples, g_c, and over noisy ones, g_n, both of the training set, and their "
    "ratio. Below: training accuracy on clean (solid) and noisy (dashed) examples, "
    "validation accuracy, and training accuracy on clean against noisy examples, a "
    f"point for each record. Grey: no penalty. {SPREAD} Not smoothed."
)
ALT = (
    "Six panels a setting, a line for each coefficient: gradient norms of clean and "
    "noisy examples and their ratio, training and validation accuracy against epoch; "
    "paths of clean against noisy training accuracy."
)
NOISE = 0.25
# VGG-11, and SimpleCNN in its place; figure 11 has the others.
_NETWORKS_OF_FIGURE_5 = ("vgg11", "simple_cnn")
_ORDER = (*_NETWORKS_OF_FIGURE_5, "wide_resnet", "resnet", "densenet")


def noisy_settings(rows: pd.DataFrame, methods: tuple[str, ...]) -> list[Setting]:
    """Returns the settings with 25% noisy labels, by network.

    Their runs of the methods, those of the search too, and without a penalty.
    """
    settings = []
    for setting in settings_of(rows, by_noise=True):
        kept = setting.rows["method"].isin((*methods, "baseline"))
        if kept.any() and (setting.rows["noise"] == NOISE).all():
            settings.append(setting._replace(rows=setting.rows[kept]))
    return sorted(settings, key=lambda s: position(s.model, _ORDER)[0])


def memorisation_item(
    name: str,
    title: str,
    place: str,
    experiments: tuple[str, ...],
    *,
    is_figure_5: bool,
) -> Item:
    """Returns figure 5, or figure 11 with the networks that it has."""
    claim = Claim(
        "FP lowers the gradient norm of noisy examples more than of clean ones.",
        partial(_ratio_falls, is_figure_5=is_figure_5),
        NOISE,
    )
    draw = partial(draw_memorisation, is_figure_5=is_figure_5)
    return Item(
        name=name,
        title=title,
        place=place,
        experiments=experiments,
        figure=FigurePart(draw, CAPTION, ALT),
        claims=(claim,),
    )


def draw_memorisation(
    rows: pd.DataFrame, runs: Runs, *, is_figure_5: bool
) -> Drawing | str:
    """Draws six panels for each setting with noisy labels of a network, for FP.

    Args:
        is_figure_5: of VGG-11, or SimpleCNN in its place; else of all others.
    """
    settings = noisy_settings(rows, ("fp",))
    settings = [
        setting
        for setting in settings
        if _is_of_figure_5(setting) == is_figure_5
        and "fp" in set(setting.rows["method"])
    ]
    if not settings:
        return f"no {'' if is_figure_5 else 'second '}network with 25% noisy labels"
    figure, all_axes = canvas.new_figure(2 * len(settings), 3, height=1.7)
    coefficients = pd.concat([setting.rows["coefficient"] for setting in settings])
    colours = canvas.coefficient_colours(figure, all_axes, list(coefficients.dropna()))
    for index, setting in enumerate(settings):
        axes = all_axes[2 * index : 2 * index + 2]
        _draw_setting(axes, setting, _with_ratio(setting.rows, runs), colours)
    canvas.legend_below(figure, *all_axes.flat)
    return canvas.drawing_of(figure, settings)


def _draw_setting(
    all_axes: np.ndarray,
    setting: Setting,
    runs: Runs,
    colours: dict[float, tuple[float, ...]],
) -> None:
    accuracy = accuracy_metric(setting.rows, runs.metrics)
    views = (
        ("gradient/clean_norm", "‖g$_c$‖", 1.0, "log"),
        ("gradient/noisy_norm", "‖g$_n$‖", 1.0, "log"),
        ("gradient/ratio", "‖g$_n$‖ / ‖g$_c$‖", 1.0, "log"),
        ("train/clean_accuracy", "training accuracy, %", 100.0, "linear"),
        (accuracy, f"{accuracy.split('/')[0]} accuracy, %", 100.0, "linear"),
    )
    for axes, (name, label, factor, scale) in zip(all_axes.flat, views, strict=False):
        axes.set_yscale(scale)
        draw_coefficients(
            axes, setting.rows, runs, name, colours, factor, linestyle="-"
        )
        canvas.label_axes(axes, "", "epoch", label)
    noisy = "train/noisy_accuracy"
    draw_coefficients(
        all_axes[1, 0], setting.rows, runs, noisy, colours, 100, linestyle="--"
    )
    _draw_paths(all_axes[1, 2], setting.rows, runs, colours)
    all_axes[0, 1].set_title(canvas.plain(setting.title))
    for axes in all_axes.flat:
        canvas.mark_empty(axes)


def _draw_paths(
    axes: canvas.Axes,
    rows: pd.DataFrame,
    runs: Runs,
    colours: dict[float, tuple[float, ...]],
) -> None:
    for group, line in coefficient_groups(rows, colours):
        noisy, clean = (
            canvas.mean_curve(group, runs.metrics, f"train/{kind}_accuracy", factor=100)
            for kind in ("noisy", "clean")
        )
        if noisy is not None and clean is not None:
            points = line | {"linestyle": "none", "marker": "o", "markersize": 2}
            axes.plot(noisy.mean, clean.mean, **points)
    canvas.label_axes(axes, "", "accuracy on noisy examples, %", "on clean examples, %")


def _with_ratio(rows: pd.DataFrame, runs: Runs) -> Runs:
    """Returns the runs with gradient/ratio, noisy over clean, in their records."""
    metrics = dict(runs.metrics)
    for index in rows.index:
        frame = metrics[index]
        if {"gradient/clean_norm", "gradient/noisy_norm"} <= set(frame):
            clean = frame["gradient/clean_norm"].where(frame["gradient/clean_norm"] > 0)
            ratio = frame["gradient/noisy_norm"] / clean
            metrics[index] = frame.assign(**{"gradient/ratio": ratio})
    return runs._replace(metrics=metrics)


def _ratio_falls(setting: Setting, runs: Runs, *, is_figure_5: bool) -> Decision | None:
    """Decides whether FP lowers ‖g_n‖ / ‖g_c‖, its geometric mean along training."""
    if _is_of_figure_5(setting) != is_figure_5:
        return None
    sides = []
    for chosen in (setting.best(method).rows for method in ("fp", "baseline")):
        metrics = _with_ratio(chosen, runs).metrics
        means = {
            index: np.exp(np.log(metrics[index]["gradient/ratio"]).mean())
            for index in chosen.index
            if "gradient/ratio" in metrics[index]
        }
        kept = chosen.loc[list(means)]
        sides.append(by_seed(kept, pd.Series(means, dtype=float)))
    if not all(sides):
        return None
    names = "‖g_n‖ / ‖g_c‖ with FP", "that without"
    return ratio_below(sides[0], sides[1], 1.0, names=names)


def _is_of_figure_5(setting: Setting) -> bool:
    return setting.model in _NETWORKS_OF_FIGURE_5
