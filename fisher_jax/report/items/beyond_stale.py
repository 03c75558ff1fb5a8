"""Beyond the paper: how strong a penalty may be that is renewed every f steps."""

from collections.abc import Hashable, Iterator
from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, settings_of
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, difference, larger
from fisher_jax.report.item import FigurePart, Item, TablePart
from fisher_jax.report.names import METHODS, method_label, position
from fisher_jax.report.render import MINUS, summary_text
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import Row, Table
from fisher_jax.report.values import by_seed

PERIOD = 10  # the paper's f


def _last_accuracy(runs: pd.DataFrame) -> pd.Series:
    """Test accuracy in % after the last epoch; 0 of a run that diverged."""
    return 100 * runs["test_accuracy"].astype(float).fillna(0.0)


def _over_strengths(runs: pd.DataFrame) -> dict[Hashable, float]:
    """The mean over the strengths, by seed."""
    return by_seed(runs, _last_accuracy(runs))


def _kinds(runs: pd.DataFrame) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Each method at each f, in the methods' order."""
    kinds = runs[runs["coefficient"] > 0].groupby(["method", "update_every"])
    for (method, every), group in sorted(
        kinds, key=lambda kind: (position(kind[0][0], METHODS), -kind[0][1])
    ):
        yield method, every, group


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, by_noise=True)
    figure, all_axes = canvas.new_panels(len(settings), height=2.6)
    for axes, setting in zip(all_axes, settings, strict=True):
        for method, every, group in _kinds(setting.runs):
            means = _last_accuracy(group).groupby(group["coefficient"])
            line = canvas.method_line(method)
            label = canvas.method_text(method)
            if every != PERIOD:
                line, label = {**line, "alpha": 0.5}, f"{label}, f = {every:g}"
            axes.errorbar(
                list(means.groups),
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
    return Drawing(figure, len(rows), canvas.notes_of(settings))


def _fill(rows: pd.DataFrame, runs: Runs) -> Table:
    """Each method and f: accuracy by strength, its mean, and that minus FP's."""
    settings = settings_of(rows, by_noise=True)
    lines = []
    for setting in settings:
        kinds = list(_kinds(setting.runs))
        fp = [g for method, every, g in kinds if (method, every) == ("fp", PERIOD)]
        for method, every, group in kinds:
            means = _last_accuracy(group).groupby(group["coefficient"]).mean()
            seeds = _over_strengths(group)
            cells = (
                method_label(method),
                f"{every:g}",
                ", ".join(f"{alpha:g}: {mean:.1f}" for alpha, mean in means.items()),
                summary_text(summarise(list(seeds.values())), 2),
                str(len(seeds)),
                _minus(seeds, _over_strengths(fp[0]))
                if fp and group is not fp[0]
                else "",
            )
            lines.append(Row(setting.title, cells))
    columns = ("method", "f", "by strength", "mean", "n", "minus FP, f = 10")
    return Table(columns, tuple(lines), len(rows), canvas.notes_of(settings))


def _minus(values: dict[Hashable, float], others: dict[Hashable, float]) -> str:
    found = difference(values, others)
    if isinstance(found, str):
        return ""
    text = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", MINUS)


def _is_steadier(setting: Setting, runs: Runs, *, method: str) -> Decision | None:
    groups, whole = (
        setting.runs[
            (setting.runs["method"] == name) & (setting.runs["update_every"] == PERIOD)
        ]
        for name in (f"{method}_groups", method)
    )
    if not len(groups) or not len(whole):
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
        "standard deviation over seeds; f = 10 unless said.",
        "Accuracy against the strength on a logarithmic axis, a line for each method; "
        "where a line falls off the method has become too strong.",
    ),
    table=TablePart(
        _fill,
        "Test accuracy in % after the last epoch, 0 for a run that diverged: the mean "
        "over seeds for each strength; the mean over all strengths, ± standard "
        "deviation over seeds; and its difference to FP at f = 10, paired, with "
        "Student's 95% interval.",
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
