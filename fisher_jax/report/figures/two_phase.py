"""High or low regularisation in the first 20 epochs only: figures 6 and 13."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fisher_jax.report import published
from fisher_jax.report.choose import one_version, unfinished_note
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.statistics import summarise

COLOURS = {"high": "#0057B8", "low": "#C8102E"}
_EXPERIMENTS = ("fig06", "fig13")
_PHASES = {"early": 1, "continued": 2}


def figure_6(runs: Runs) -> Drawing | str:
    """Early Tr(F), final Tr(H) and accuracy after two kinds of early training."""
    return _two_phase(runs, "figure6", "learning_rate", "learning rate")


def figure_13(runs: Runs) -> Drawing | str:
    """The same where the batch size differs in the first phase."""
    return _two_phase(runs, "figure13", "batch_size", "batch size")


def with_phases(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns phase (1 or 2), start (high or low), varied and first_*.

    From run.json's group where it says so; otherwise a run that starts from another
    is of phase 2, and its start is high if its parent's learning rate is the larger
    or its batch size the smaller of those that parents have.
    """
    parents = {_resolved(path): i for i, path in table["path"].items()}
    rows = rows.copy()
    rows["parent"] = [parents.get(_resolved(path)) for path in rows["init_from"]]
    rows["phase"] = [
        _PHASES.get(str(group.get("phase")), 2 if init else 1)
        for group, init in zip(rows["group"], rows["init_from"], strict=True)
    ]
    own = rows["parent"].where(rows["phase"] == 2)
    source = [i if pd.isna(p) else int(p) for i, p in own.items()]
    for name in ("learning_rate", "batch_size", "early_fisher_trace"):
        rows[f"first_{name}"] = table.loc[source, name].to_numpy()
    firsts = rows[rows["phase"] == 1] if (rows["phase"] == 1).any() else rows
    is_rate = firsts["first_batch_size"].nunique() <= 1
    rows["varied"] = "learning_rate" if is_rate else "batch_size"
    values = rows["first_learning_rate"] if is_rate else -rows["first_batch_size"]
    guessed = np.where(values >= values.max(), "high", "low")
    rows["start"] = [
        str(group.get("early", guess))
        for group, guess in zip(rows["group"], guessed, strict=True)
    ]
    return rows


def _resolved(path: str) -> str:
    return path.rstrip("/").removeprefix("./").rsplit("/checkpoints", 1)[0]


def phase_panels(runs: Runs) -> list[Panel]:
    """Returns a panel for each setting, its runs with their phases."""
    rows = canvas.run_rows(runs, _EXPERIMENTS)
    panels = []
    for _, group in rows.groupby(["is_small", "setting_label", "sweep_setting"]):
        chosen = one_version(group)
        phased = with_phases(chosen.runs, runs.table)
        small = " (small)" if bool(group["is_small"].iloc[0]) else ""
        title = f"{group['setting_label'].iloc[0]}{small}"
        notes = (*chosen.notes, *unfinished_note(chosen.runs))
        dataset = str(group["dataset"].iloc[0])
        panels.append(Panel(title, phased, notes, bool(small), dataset))
    return panels


def _two_phase(runs: Runs, key: str, varied: str, word: str) -> Drawing | str:
    panels = [p for p in phase_panels(runs) if p.runs["varied"].iloc[0] == varied]
    if not panels:
        return f"no runs of fig06 with two values of the {word}"
    figure, all_axes = canvas.new_figure(len(panels), 3, height=2.0)
    for panel, (bars, hessian, accuracy) in zip(panels, all_axes, strict=True):
        paper = published.FIGURES_6_AND_13.get(panel.dataset, {})
        paper = {} if panel.is_small else paper
        second = panel.runs[panel.runs["phase"] == 2]
        _draw_bars(bars, panel.runs, paper)
        _draw_histogram(hessian, second, "hessian_trace_at_best_test", 1.0)
        _draw_histogram(accuracy, second, "best_test_accuracy", 100.0)
        hessian.set_xlabel("Tr(H) at the best epoch")
        accuracy.set_xlabel("best test accuracy, %")
        hessian.set_title(panel.title)
        for start, value in paper.items():
            low, high = value.final_hessian_trace
            mark = {
                "mfc": "none",
                "mec": COLOURS[start],
                "marker": "D",
                "clip_on": False,
            }
            top = hessian.get_ylim()[1]
            hessian.plot([low, high], [top, top], color=COLOURS[start], lw=0.7, **mark)
            accuracy.plot([value.accuracy], [accuracy.get_ylim()[1]], ls="none", **mark)
    hollow = " Hollow: the paper's values, by eye." if "figure" in key else ""
    return Drawing(
        key,
        "Regularisation in the first epochs decides where training ends",
        figure,
        f"Phase one trains with a high or low regularising {word}, phase two continues "
        "every run under the low one. Left: Tr(F) where phase one crosses ε, bars with "
        "one standard deviation over seeds, dots single runs. Right: histograms over "
        "the continued runs." + hollow,
        "Bars of early Tr(F) and histograms of final Tr(H) and best test accuracy, "
        "blue after high and red after low early regularisation.",
        _EXPERIMENTS,
        sum(len(panel.runs) for panel in panels),
        canvas.notes_of(panels),
    )


def _draw_bars(
    axes: Axes, runs: pd.DataFrame, paper: Mapping[str, published.TwoPhase]
) -> None:
    first = runs[runs["phase"] == 1]
    shown = first if len(first) else runs
    labels = []
    for place, start in enumerate(("high", "low")):
        group = shown[shown["start"] == start]
        values = list(group["first_early_fisher_trace"].astype(float).dropna())
        summary = summarise(values)
        labels.append(f"{start} (n = {summary.n if summary else 0})")
        if summary is not None:
            axes.bar(place, summary.mean, 0.6, color=COLOURS[start], alpha=0.75)
            spread = np.nan_to_num(summary.std)
            axes.errorbar(place, summary.mean, yerr=spread, color="black", lw=0.8)
            jitter = np.linspace(-0.12, 0.12, len(values))
            axes.plot(place + jitter, values, "o", ms=2, color="black", alpha=0.6)
        if start in paper:
            axes.plot(
                place + 0.22, paper[start].early_trace, "o", mfc="none", mec="black"
            )
    if not axes.has_data():
        canvas.mark_empty(axes, "no first phase\nhas reached ε")
        return
    axes.set_xticks((0, 1), labels)
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylabel("early Tr(F)")
    axes.set_xlabel("early regularisation")
    axes.grid(visible=False, axis="x")


def _draw_histogram(
    axes: Axes, runs: pd.DataFrame, quantity: str, factor: float
) -> None:
    values = {
        start: factor * runs[runs["start"] == start][quantity].astype(float).dropna()
        for start in ("high", "low")
    }
    everything = np.concatenate([v.to_numpy() for v in values.values()])
    axes.set_ylabel("runs")
    if not everything.size:
        canvas.mark_empty(axes, "no continued run\nhas ended with it")
        return
    bins = np.histogram_bin_edges(everything, bins=min(12, max(5, everything.size)))
    for start, sample in values.items():
        if len(sample):
            axes.hist(
                sample,
                bins=list(bins),
                color=COLOURS[start],
                alpha=0.6,
                edgecolor="white",
                linewidth=0.4,
                label=f"{start} (n = {len(sample)})",
            )
    axes.legend(loc="best", fontsize=6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
