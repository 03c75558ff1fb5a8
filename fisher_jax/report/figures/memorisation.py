"""Right labels learnt and wrong ones memorised: figures 5, 11 and 12."""

import pandas as pd

from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.figures.coefficients import (
    SPREAD,
    coefficient_groups,
    draw_coefficients,
    finish_panel,
    of_coefficient,
)
from fisher_jax.report.figures.curves import accuracy_name

_NOISE = ("table3", "fig05", "fig11", "fig12", "digits_fp")


def figure_5(runs: Runs) -> Drawing | str:
    """Gradients of clean and noisy examples and memorisation, first network."""
    return _memorisation(runs, "figure5", 0)


def figure_11(runs: Runs) -> Drawing | str:
    """Gradients of clean and noisy examples and memorisation, second network."""
    return _memorisation(runs, "figure11", 1)


def _noise_panels(runs: Runs) -> list[Panel]:
    """The settings with noisy labels, at the noise nearest to the paper's 25%."""
    rows = runs.table[runs.table["experiment"].isin(_NOISE) & (runs.table["noise"] > 0)]
    rows = rows[rows["method"].isin(("fp", "baseline"))]
    panels = []
    for panel in canvas.panels_of(rows) if len(rows) else []:
        noise = min(set(panel.runs["noise"]), key=lambda share: abs(share - 0.25))
        kept = panel.runs[panel.runs["noise"] == noise]
        title = f"{panel.title}, {100 * noise:g}% noise"
        panels.append(panel._replace(runs=kept, title=title))
    order = ("vgg11", "simple_cnn", "wide_resnet", "resnet", "densenet")
    return sorted(
        panels, key=lambda p: order.index(_model(p)) if _model(p) in order else 9
    )


def _model(panel: Panel) -> str:
    return str(panel.runs["model"].iloc[0])


def _memorisation(runs: Runs, key: str, which: int) -> Drawing | str:
    panels = _noise_panels(runs)
    if len(panels) <= which:
        return (
            "no runs of table3" if not panels else "no second network in table3's runs"
        )
    panel = panels[which]
    figure, all_axes = canvas.new_figure(2, 3, height=1.7)
    colours = canvas.coefficient_colours(
        figure, all_axes, list(panel.runs["coefficient"].dropna())
    )
    accuracy = accuracy_name(panel.runs, runs)
    _add_ratio(panel.runs, runs)
    views = (
        ("gradient/clean_norm", "‖g_clean‖", 1.0, "log"),
        ("gradient/noisy_norm", "‖g_noisy‖", 1.0, "log"),
        ("gradient/ratio", "‖g_noisy‖ / ‖g_clean‖", 1.0, "log"),
        ("gradient/cosine", "cosine(g_clean, g_noisy)", 1.0, "linear"),
        (accuracy, f"{accuracy.split('/')[0]} accuracy, %", 100.0, "linear"),
    )
    cells = [all_axes[0, 0], all_axes[0, 1], all_axes[0, 2]]
    cells += [all_axes[1, 0], all_axes[1, 2]]
    for axes, (name, label, factor, scale) in zip(cells, views, strict=True):
        axes.set_yscale(scale)
        draw_coefficients(axes, panel.runs, runs, name, colours, factor)
        finish_panel(axes, label)
    draw_coefficients(
        all_axes[1, 1], panel.runs, runs, "train/clean_accuracy", colours, 100
    )
    draw_coefficients(
        all_axes[1, 1],
        panel.runs,
        runs,
        "train/noisy_accuracy",
        colours,
        100,
        linestyle=":",
    )
    finish_panel(all_axes[1, 1], "training accuracy, %")
    all_axes[1, 1].set_title("clean: lines, noisy: dots", fontsize=7)
    figure.suptitle(panel.title, fontsize=8)
    canvas.legend_below(figure, *all_axes.flat)
    return Drawing(
        key,
        "FP slows down learning of wrong labels more than of right ones",
        figure,
        "Norms of the mean gradient over clean and over noisy training examples, their "
        "ratio and cosine; training accuracy on both; validation accuracy. Dashed "
        f"grey: no penalty. {SPREAD} Not smoothed.",
        "Six panels against epoch: gradient norms of clean and noisy examples, their "
        "ratio and cosine, training accuracy on both kinds, validation accuracy; a "
        "line for each coefficient.",
        _NOISE,
        len(panel.runs),
        panel.notes,
    )


def _add_ratio(rows: pd.DataFrame, runs: Runs) -> None:
    for index in rows.index:
        frame = runs.metrics[index]
        if {"gradient/clean_norm", "gradient/noisy_norm"} <= set(frame):
            clean = frame["gradient/clean_norm"].where(frame["gradient/clean_norm"] > 0)
            frame["gradient/ratio"] = frame["gradient/noisy_norm"] / clean


def figure_12(runs: Runs) -> Drawing | str:
    """Training accuracy on clean against noisy examples, a path for each α."""
    panels = _noise_panels(runs)
    if not panels:
        return "no runs of table3"
    panels = panels[:3]
    figure, all_axes = canvas.new_figure(1, len(panels), height=2.3)
    coefficients = pd.concat([panel.runs["coefficient"] for panel in panels]).dropna()
    colours = canvas.coefficient_colours(figure, all_axes, list(coefficients))
    for axes, panel in zip(all_axes[0], panels, strict=True):
        for coefficient, line in coefficient_groups(panel.runs, colours):
            group = panel.runs[of_coefficient(panel.runs, coefficient)]
            curves = [
                canvas.mean_curve(
                    group, runs.metrics, f"train/{kind}_accuracy", factor=100
                )
                for kind in ("noisy", "clean")
            ]
            noisy, clean = curves
            if noisy is not None and clean is not None:
                axes.plot(noisy.mean, clean.mean, marker="o", markersize=2, **line)
        axes.plot([0, 100], [0, 100], color="#BBBBBB", linewidth=0.7, zorder=0)
        axes.set_title(panel.title)
        axes.set_xlabel("accuracy on noisy examples, %")
        axes.set_ylabel("accuracy on clean examples, %")
    canvas.legend_below(figure, *all_axes.flat)
    return Drawing(
        "figure12",
        "What is learnt of right labels by the time wrong ones are memorised",
        figure,
        "Training accuracy on clean against noisy examples, a point for each record. "
        f"Above the grey diagonal right labels are learnt first. {SPREAD} Dashed "
        "grey: no penalty.",
        "Paths of clean against noisy training accuracy, one for each coefficient; "
        "larger coefficients keep to the upper left if the paper's claim holds.",
        _NOISE,
        sum(len(panel.runs) for panel in panels),
        canvas.notes_of(panels),
    )
