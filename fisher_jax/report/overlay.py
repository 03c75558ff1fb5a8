"""One figure with several runs: a panel per metric, a line per run, against epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from fisher_jax.report.runs import RunFiles, series

# Okabe and Ito's palette: told apart with any colour vision, and in grey by its order.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Panel(NamedTuple):
    """One metric, how its axis is named and scaled, and a factor (100 for percent)."""

    metric: str
    label: str
    scale: str = "linear"
    factor: float = 1.0


def draw_overlay(
    runs: Mapping[str, RunFiles], panels: Sequence[Panel], title: str
) -> Figure:
    """Returns a figure with the panels side by side and one legend below them.

    Args:
        runs: by the name that the legend shows, in the order of the colours.
    """
    figure = Figure(figsize=(4.2 * len(panels), 4.0), layout="constrained", dpi=150)
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        for (name, run), colour in zip(runs.items(), COLOURS, strict=False):
            epochs, values = series(run, panel.metric)
            scaled = [panel.factor * value for value in values]
            axes.plot(epochs, scaled, label=name, color=colour, linewidth=1.6)
        axes.set_xlabel("epoch")
        axes.set_title(panel.label, fontsize=11)
        axes.set_yscale(panel.scale)
        axes.grid(visible=True, color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False
    )
    figure.suptitle(title, fontsize=12)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes PNG or PDF, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
