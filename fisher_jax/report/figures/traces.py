"""One trace against another along training: figures 15 and 21."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing
from fisher_jax.report.statistics import correlate


def pairs(
    rows: pd.DataFrame, runs: Runs, x: str, y: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two metrics at all records of all runs that hold both, both positive."""
    frames = [
        frame[[x, y]].dropna()
        for frame in (runs.metrics[index] for index in rows.index)
        if x in frame and y in frame
    ]
    if not frames:
        return np.empty(0), np.empty(0)
    both = pd.concat(frames)
    both = both[(both > 0).all(axis=1)]
    return both[x].to_numpy(float), both[y].to_numpy(float)


def figure_15(runs: Runs) -> Drawing | str:
    """Tr(F) and Tr(F_B) along training, and one against the other."""
    rows = canvas.run_rows(runs, ("fig15",))
    if not len(rows):
        return "no runs of fig15"
    panels = canvas.panels_of(rows)
    names = ("trace/fisher", "trace/fisher_minibatch")
    labels = ("Tr(F)", "Tr(F$_B$)")
    figure, all_axes = canvas.new_figure(len(panels), 3, height=2.1)
    for panel, (left, middle, right) in zip(panels, all_axes, strict=True):
        colours = canvas.ordered_colours(list(panel.runs["learning_rate"].dropna()))
        for rate, colour in colours.items():
            group = panel.runs[panel.runs["learning_rate"] == rate]
            for axes, name in zip((left, middle), names, strict=True):
                axes.set_yscale("log")
                curve = canvas.mean_curve(group, runs.metrics, name)
                canvas.draw_curve(axes, curve, color=colour, label=f"η = {rate:.3g}")
            right.plot(
                *pairs(group, runs, *names), ".", ms=2.5, alpha=0.6, color=colour
            )
        for axes, label in zip((left, middle), labels, strict=True):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            canvas.mark_empty(axes)
        left.set_title(panel.title)
        _finish_scatter(right, pairs(panel.runs, runs, *names), labels)
    canvas.legend_below(figure, *all_axes.flat)
    return Drawing(
        "figure15",
        "The minibatch form follows Tr(F)",
        figure,
        "Tr(F) is the mean squared gradient norm of single examples, Tr(F_B) the "
        "squared norm of the mean gradient of one batch of B examples; with sampled "
        "labels the expectation of the second is the first divided by B. Correlations "
        "are of the logarithms (Pearson) and ranks (Spearman, 95% bootstrap interval) "
        "over all records; records of a run depend on each other, so the interval is "
        "narrower than independent points would give.",
        "Tr(F) and Tr(F_B) against epoch for several learning rates, and a scatter of "
        "one against the other.",
        ("fig15",),
        len(rows),
        canvas.notes_of(panels),
    )


def figure_21(runs: Runs) -> Drawing | str:
    """Tr(H) against Tr(F) along training, a panel for each network."""
    rows = canvas.run_rows(runs, ("fig21",))
    if not len(rows):
        return "no runs of fig21"
    panels = canvas.panels_of(rows)
    figure, all_axes = canvas.new_panels(len(panels), height=2.3)
    for axes, panel in zip(all_axes, panels, strict=True):
        x, y = pairs(panel.runs, runs, "trace/fisher", "trace/hessian")
        axes.plot(x, y, ".", ms=3, alpha=0.6, color=canvas.BLUE_TO_RED(0.0))
        if x.size:
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color="#BBBBBB", lw=0.8, zorder=0, label="equal")
            axes.legend(loc="upper left")
        _finish_scatter(axes, (x, y), ("Tr(F)", "Tr(H)"))
        axes.set_title(f"{panel.title}\n{axes.get_title()}", fontsize=7)
    return Drawing(
        "figure21",
        "Tr(H) equals Tr(F)",
        figure,
        "A point for each record of each run. For networks that are piecewise linear "
        "in each layer's weights the two are equal on the same examples, whatever the "
        "labels; what is left is the error of the estimates. Correlations are of the "
        "logarithms (Pearson) and ranks (Spearman, 95% bootstrap interval).",
        "Scatter of Tr(H) against Tr(F) on logarithmic axes around the grey line of "
        "equality, a panel for each network.",
        ("fig21",),
        len(rows),
        canvas.notes_of(panels),
    )


def _finish_scatter(
    axes: Axes, points: tuple[np.ndarray, np.ndarray], labels: tuple[str, str]
) -> None:
    x, y = points
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if x.size:
        axes.set_xscale("log")
        axes.set_yscale("log")
        text = canvas.correlation_text(correlate(np.log(x), np.log(y)))
        axes.set_title(text, fontsize=7)
    canvas.mark_empty(axes, "not recorded together")
