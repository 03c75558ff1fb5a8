"""What figures are drawn with: sizes, colours, mean curves with their spread, marks."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from fisher_jax.report.choose import Setting, drawable, join_notes
from fisher_jax.report.names import method_latex
from fisher_jax.report.statistics import Correlation, Summary, smooth

STYLE = Path(__file__).parent / "paper.mplstyle"
COLUMN, PAGE = 3.25, 6.75  # inches
# Okabe and Ito's palette, told apart with any colour vision; styles repeat it in grey.
METHOD_STYLES: Mapping[str, tuple[str, Any]] = {
    "eta_star": ("#000000", "-"),
    "baseline": ("#7A7A7A", "--"),
    "fp": ("#D55E00", "-"),
    "gp_x": ("#0072B2", "-."),
    "gp": ("#009E73", ":"),
    "gp_r": ("#CC79A7", (0, (5, 1, 1, 1))),
    "mixup": ("#E69F00", (0, (3, 1))),
    "rfp": ("#56B4E9", "-"),
    "fp_groups": ("#8F3A00", (0, (4, 1))),
    "importance": ("#12756B", "-"),
    "rfp_groups": ("#1B7FB5", (0, (4, 1))),
    "importance_groups": ("#0B3C5D", (0, (2, 1))),
    "fp_single": ("#8C5A2B", "-."),
    "sam": ("#6A51A3", (0, (1, 1))),
    "gradient_norm": ("#4D9221", (0, (4, 2, 1, 2))),
}
# Blue to red through purple: as the paper's order of coefficients, dark throughout.
BLUE_TO_RED = LinearSegmentedColormap.from_list(
    "blue_to_red", ("#0057B8", "#6A5ACD", "#9E3D8F", "#C8102E")
)
# Okabe and Ito's palette again, for lines that are no methods.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "h", "p")
# A published value beside ours.
HOLLOW: Mapping[str, Any] = MappingProxyType(
    {"marker": "o", "mfc": "none", "mec": "black", "ls": "none"}
)
MAX_POINTS = 1500  # of one line, after smoothing; of more, the extremes
# For the caption of what also shows √Tr(F).
ROOT_REASON = (
    "The paper's section 4 prints values of another order than its section 3 and than "
    "mean squared gradient norms of these networks; they look like norms, not squared "
    "norms. We compute Tr(F) as defined and give its square root for comparison."
)


class Drawing(NamedTuple):
    """A figure, how many runs its settings have, and what is to be said of them."""

    figure: Figure
    run_count: int
    notes: tuple[str, ...] = ()


class Curve(NamedTuple):
    """A mean over runs with its standard deviation.

    Of one run: its own standard error where one was recorded, else 0.
    """

    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def new_figure(
    num_rows: int, num_columns: int, *, height: float = 1.75
) -> tuple[Figure, np.ndarray]:
    """Returns a figure and its axes [rows, columns]; one column wide for one panel."""
    width = COLUMN if num_columns == 1 else PAGE
    figure = Figure(figsize=(width, height * num_rows + 0.25))
    return figure, figure.subplots(num_rows, num_columns, squeeze=False)


def new_panels(
    count: int, *, height: float, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """Returns a figure and the axes of so many panels, row by row."""
    columns = min(columns, count)
    figure, grid = new_figure(-(-count // columns), columns, height=height)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, list(grid.flat[:count])


def style() -> AbstractContextManager[None]:
    """Returns the context in which every figure is made and written."""
    return matplotlib.rc_context(fname=STYLE)


def mean_curve(
    rows: pd.DataFrame,
    metrics: Mapping[int, pd.DataFrame],
    name: str,
    *,
    x: str = "epoch",
    factor: float = 1.0,
    decay: float = 0.0,
) -> Curve | None:
    """Averages a metric over runs at each x that all of them have.

    Each run is smoothed before; unended runs are left out where others have ended.
    """
    curves, errors = [], np.empty(0)
    for index in drawable(rows).index:
        frame = metrics[index]
        if name not in frame or x not in frame:
            continue
        places, values = frame[x].to_numpy(), frame[name].to_numpy()
        known = np.flatnonzero(~np.isnan(places) & ~np.isnan(values))
        if not known.size:
            continue
        places, from_end = np.unique(places[known][::-1], return_index=True)
        known = known[::-1][from_end]  # the last record of each place
        curves.append((places, smooth(places, factor * values[known], decay)))
        if f"{name}_sem" in frame and not decay:
            errors = factor * frame[f"{name}_sem"].to_numpy()[known]
    if not curves:
        return None
    shared = reduce(np.intersect1d, [places for places, _ in curves])
    if not shared.size:
        return None
    together = np.array(
        [values[np.searchsorted(places, shared)] for places, values in curves]
    )
    mean, std = together.mean(axis=0), np.zeros(shared.size)
    if len(curves) > 1:
        std = together.std(axis=0, ddof=1)
    elif errors.size:
        std = np.nan_to_num(errors)
    drawn = _drawn_places(mean)
    return Curve(shared[drawn], mean[drawn], std[drawn])


def _drawn_places(values: np.ndarray) -> np.ndarray:
    """Returns at most ``MAX_POINTS`` places of a line: its ends, peaks and troughs."""
    if len(values) <= MAX_POINTS:
        return np.arange(len(values))
    chosen = {0, len(values) - 1}
    for places in np.array_split(np.arange(len(values)), MAX_POINTS // 2 - 1):
        chosen |= {places[values[places].argmin()], places[values[places].argmax()]}
    return np.array(sorted(chosen))


def draw_curve(axes: Axes, curve: Curve | None, **line: Any) -> None:
    """Draws a mean line with a band of one standard deviation, or a run's error."""
    if curve is None:
        return
    (drawn,) = axes.plot(curve.x, curve.mean, **line)
    if curve.std.any():
        low, high = curve.mean - curve.std, curve.mean + curve.std
        if axes.get_yscale() == "log":
            low = np.maximum(low, curve.mean / 10)
        axes.fill_between(
            curve.x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0
        )


def draw_level(axes: Axes, summary: Summary, **line: Any) -> None:
    """Draws a mean across all of the x axis with a band of one standard deviation."""
    axes.axhline(summary.mean, **line)
    spread = float(np.nan_to_num(summary.std))
    if spread:
        low, high = summary.mean - spread, summary.mean + spread
        axes.axhspan(low, high, color=line["color"], alpha=0.12, linewidth=0)


def method_line(method: str) -> dict[str, Any]:
    """Returns colour and line style of a method, the same in every figure."""
    colour, line = METHOD_STYLES.get(method, ("#444444", "-"))
    return {"color": colour, "linestyle": line}


def method_text(method: str) -> str:
    """Returns a method's name for a legend, with its subscript."""
    return method_latex(method) or plain(method)


def plain(name: str) -> str:
    """Returns a name that matplotlib neither reads as mathematics nor hides."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def ordered_colours(values: Sequence[float]) -> dict[float, tuple[float, ...]]:
    """Returns colours from blue (smallest) to red (largest), by rank."""
    distinct = sorted(set(values))
    scale = max(len(distinct) - 1, 1)
    return {value: BLUE_TO_RED(rank / scale) for rank, value in enumerate(distinct)}


def distinct_lines(count: int) -> list[dict[str, Any]]:
    """Returns colours and line styles: 28 that differ, then the same ones again."""
    return [
        {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINES[index // len(COLOURS) % len(LINES)],
        }
        for index in range(count)
    ]


def coefficient_colours(
    figure: Figure, axes: Any, values: Sequence[float]
) -> dict[float, tuple[float, ...]]:
    """Returns colours by the logarithm of α and adds their bar, or none for one α."""
    positive = sorted({value for value in values if value > 0})
    if len(positive) < 2:
        return {value: BLUE_TO_RED(1.0) for value in positive}
    norm = LogNorm(positive[0], positive[-1])
    bar = figure.colorbar(
        ScalarMappable(norm, BLUE_TO_RED),
        ax=axes,
        aspect=30,
        pad=0.015,
        fraction=0.05,
    )
    bar.set_label("coefficient α")
    bar.outline.set_visible(False)
    return {value: BLUE_TO_RED(norm(value)) for value in positive}


def add_root_axis(axes: Axes) -> None:
    """Adds √Tr(F) on the right: the paper's section 4 seems to print the root.

    Its labels stand at the ticks of the left axis, so that one grid serves both; call
    it once everything is drawn.
    """
    if not axes.has_data():
        return
    if axes.get_yscale() == "log":
        tidy_log_axis(axes.yaxis)
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5))
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if max(low, 0) <= tick <= high]
    # Fixed, or the layout may leave room for other ones.
    axes.set_yticks(ticks)
    root = axes.secondary_yaxis("right")
    root.set_yticks(ticks, [f"{tick**0.5:.3g}" for tick in ticks])
    root.minorticks_off()
    root.set_ylabel("√Tr(F)")
    root.spines["right"].set_visible(True)


def start_at_zero(axes: Axes) -> None:
    """Lets the y axis begin at zero and end a little above what is drawn."""
    if axes.has_data():
        axes.set_ylim(0, 1.05 * axes.dataLim.y1)


def tidy_log_axis(axis: Any) -> None:
    """Labels a logarithmic axis that spans less than a decade or two with numbers."""
    low, high = sorted(axis.get_view_interval())
    if low <= 0 or high / low > 100:
        return
    ratio = high / low
    subs: tuple[float, ...] = (1.0, 3.0) if ratio > 20 else (1.0, 2.0, 5.0)
    if ratio < 4:
        subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def finish(figure: Figure) -> None:
    """Gives axes their last touch: few whole epochs, readable logarithmic ticks."""
    for axes in figure.axes:
        if not axes.has_data():
            continue
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                tidy_log_axis(axis)
        if axes.get_xlabel() in ("epoch", "step"):
            steps = (1, 2, 2.5, 5, 10)
            locator = ticker.MaxNLocator(nbins=5, steps=steps, integer=True)
            axes.xaxis.set_major_locator(locator)


def save(figure: Figure, path: Path, title: str, description: str) -> None:
    """Writes PATH as PNG and beside it as PDF.

    The layout is found once: matplotlib would twice for each file. Without a date, so
    that the same runs give the same files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with style(), matplotlib.rc_context({"figure.constrained_layout.use": False}):
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
        figure.set_layout_engine(None)
        metadata = {"CreationDate": None, "Title": title}
        figure.savefig(path.with_suffix(".pdf"), metadata=metadata)
        figure.savefig(path, metadata={"Description": description})


def mark_empty(axes: Axes, text: str = "not recorded") -> None:
    """Says in an empty panel that, and why, nothing is there."""
    if not axes.has_data():
        axes.text(
            0.5,
            0.5,
            text,
            ha="center",
            va="center",
            transform=axes.transAxes,
            color="#666666",
        )
        axes.set_xticks([])
        axes.set_yticks([])


def legend_below(figure: Figure, *all_axes: Axes) -> int:
    """Puts one legend below all panels, with every name once, as wide as fits.

    Returns the number of its lines.
    """
    entries: dict[str, Any] = {}
    for axes in all_axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if not entries:
        return 0
    # A handle and gaps take about half an inch, a letter of 7 points 0.06 inches.
    entry = 0.5 + 0.06 * max(len(name.replace("mathrm", "")) for name in entries)
    columns = min(max(1, int(figure.get_figwidth() / entry)), len(entries))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
    )
    return -(-len(entries) // columns)


def correlation_text(correlation: Correlation | None) -> str:
    """Returns r and ρ of so many points in a short line for a panel."""
    if correlation is None:
        return ""
    return (
        f"r = {correlation.pearson:.2f}, ρ = {correlation.spearman:.2f}, "
        f"n = {correlation.n}"
    ).replace("-", "−")


def notes_of(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Returns all settings' notes, each once."""
    return join_notes([setting.notes for setting in settings])


def drawing_of(
    figure: Figure, settings: Sequence[Setting], notes: Sequence[str] | None = None
) -> Drawing:
    """Returns the drawing of all runs of settings, with their notes or others."""
    count = sum(len(setting.rows) for setting in settings)
    told = notes_of(settings) if notes is None else tuple(dict.fromkeys(notes))
    return Drawing(figure, count, told)


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Names a panel of curves and what stands on its axes."""
    axes.set_title(plain(title))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.01)
