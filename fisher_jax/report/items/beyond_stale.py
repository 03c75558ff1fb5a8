"""Beyond the paper: how strong a penalty may be that is renewed every f steps."""

from collections.abc import Hashable
from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, difference, larger
from fisher_jax.report.item import FigurePart, Item, TablePart
from fisher_jax.report.names import METHOD_NAMES, method_label, position
from fisher_jax.report.render import interval_text, summary_text
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import Row, Table
from fisher_jax.run_files import DIVERGED

PERIOD = 10  # the paper's f


def _last_accuracy(rows: pd.DataFrame) -> pd.Series:
    """Test accuracy in % after the last epoch; 0 of a run that diverged."""
    accuracy = 100 * rows["test_accuracy"].astype(float)
    return accuracy.mask(rows["status"] == DIVERGED, 0.0)


def _over_strengths(rows: pd.DataFrame) -> dict[Hashable, float]:
    """The mean over the strengths by seed, of seeds that have them all."""
    both = [rows["seed"], rows["coefficient"]]
    table = _last_accuracy(rows).groupby(both).mean().unstack()
    return dict(table.mean(axis=1, skipna=False).dropna())


def _kinds(rows: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
    """The runs of each method at each f, in the methods' order."""
    kinds = dict(list(rows.groupby(["method", "update_every"])))
    order = sorted(kinds, key=lambda kind: (position(kind[0], METHOD_NAMES), -kind[1]))
    return {kind: kinds[kind] for kind in order}


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, by_noise=True)
    figure, all_axes = canvas.new_panels(len(settings), height=3.2)
    for axes, setting in zip(all_axes, settings, strict=True):
        kinds = _kinds(setting.rows)
        plain = kinds.pop(("baseline", PERIOD), rows.iloc[:0])
        if (level := summarise(list(_last_accuracy(plain)))) is not None:
            line = {**canvas.method_line("baseline"), "label": method_label("baseline")}
            canvas.draw_level(axes, level, **line)
        for index, ((method, every), group) in enumerate(kinds.items()):
            # Sideways, or error bars would hide each other.
            apart = 1.03 ** (index - (len(kinds) - 1) / 2)
            means = _last_accuracy(group).groupby(group["coefficient"])
            line = canvas.method_line(method)
            label = canvas.method_text(method)
            if every != PERIOD:
                line, label = {**line, "alpha": 0.5}, f"{label}, f = {every:g}"
            axes.errorbar(
                [apart * strength for strength in means.groups],
                means.mean(),
                yerr=means.std(),
                marker="o",
                ms=3,
                label=label,
                **line,
            )
        axes.set_xscale("log")
        canvas.label_axes(
            axes, setting.title, "strength α", "test accuracy, last epoch, %"
        )
        canvas.mark_empty(axes, "no run has ended")
    canvas.legend_below(figure, *all_axes)
    return canvas.drawing_of(figure, settings)


def _fill(rows: pd.DataFrame, runs: Runs) -> Table:
    """Each method and f: accuracy by strength, its mean, and that minus FP's."""
    settings = settings_of(rows, by_noise=True)
    lines = []
    for setting in settings:
        kinds = _kinds(setting.rows)
        fp = kinds.get(("fp", PERIOD))
        for (method, every), group in kinds.items():
            other = None if group is fp else fp
            period = "–" if method == "baseline" else f"{every:g}"
            cells = (method_label(method), period, *_cells(group, other))
            lines.append(Row(setting.title, cells))
    columns = ("method", "f", "by strength", "mean", "n", "minus FP, f = 10")
    return Table(columns, tuple(lines), len(rows), canvas.notes_of(settings))


def _cells(group: pd.DataFrame, other: pd.DataFrame | None) -> tuple[str, ...]:
    """Accuracy by strength, its mean, of how many seeds, and that minus the other's."""
    means = _last_accuracy(group).groupby(group["coefficient"]).mean()
    seeds = _over_strengths(group)
    found = "" if other is None else difference(seeds, _over_strengths(other))
    return (
        ", ".join(f"{alpha:g}: {mean:.1f}" for alpha, mean in means.items() if alpha),
        summary_text(summarise(list(seeds.values())), 2),
        str(len(seeds)),
        "" if isinstance(found, str) else interval_text(found),
    )


def _is_steadier(setting: Setting, runs: Runs, *, method: str) -> Decision | None:
    kinds = _kinds(setting.rows)
    groups, whole = (kinds.get((name, PERIOD)) for name in (f"{method}_groups", method))
    if groups is None or whole is None:
        return None
    label = method_label(method)
    return larger(
        _over_strengths(groups), _over_strengths(whole), names=(f"{label} in 8", label)
    )


ITEM = Item(
    name="Beyond the paper: stale penalties",
    title="Strength of penalties that are renewed every 10 steps",
    place="",
    experiments=("beyond_stale",),
    figure=FigurePart(
        _draw,
        "Test accuracy after the last epoch against the strength, mean and one "
        "standard deviation over seeds; f = 10 unless said. Points of one strength "
        "are drawn a little apart.",
        "Accuracy against the strength on a logarithmic axis, a line for each method; "
        "where a line falls off the method has become too strong.",
    ),
    table=TablePart(
        _fill,
        "Test accuracy in % after the last epoch, 0 for a run that diverged: the mean "
        "over seeds for each strength; the mean over all strengths, ± standard "
        "deviation over seeds; and its difference to FP at f = 10, paired, with "
        "Student's 95% interval. The baseline has no penalty.",
    ),
    claims=tuple(
        Claim(
            f"{method_label(method)} in 8 groups keeps more accuracy over the "
            "strengths than with the batch whole, f = 10.",
            partial(_is_steadier, method=method),
        )
        for method in ("fp", "rfp")
    ),
)
