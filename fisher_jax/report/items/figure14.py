"""Figure 14: Tr(H) along training, by batch size and by learning rate."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, settings_of
from fisher_jax.report.claims import Claim, Rule
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, larger, ratio_below, throughout
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.rules import unconverged, withheld
from fisher_jax.report.statistics import summarise
from fisher_jax.report.values import LETTERS, by_seed, lowest_of

FIRST_EPOCH = 10  # "after the first 10 epochs"
# Best test accuracy in %, by batch size and by learning rate.
PUBLISHED: Mapping[str, Mapping[float, float]] = {
    "cifar10": {
        520: 90.72,
        500: 90.78,
        480: 90.76,
        120: 95.52,
        100: 94.38,
        80: 94.84,
    },
    "cifar100": {
        0.0008: 51.88,
        0.001: 54.12,
        0.0012: 52.88,
        0.008: 57.38,
        0.01: 55.62,
        0.012: 56.12,
    },
}


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing:
    settings = settings_of(rows, final=True)
    columns = min(2, len(settings))
    num_rows = -(-len(settings) // columns)
    width = canvas.PAGE if columns == 2 else canvas.COLUMN * 1.3
    figure = Figure(figsize=(width, 3.2 * num_rows))
    parts = figure.subfigures(num_rows, columns, squeeze=False)
    for part, setting in zip(parts.flat, settings, strict=False):
        axes = part.subplots()
        varied = _varied(setting.rows)
        axes.set_yscale("log")
        values = setting.rows[varied].dropna()
        for value, colour in canvas.ordered_colours(list(values)).items():
            group = setting.rows[setting.rows[varied] == value]
            curve = canvas.mean_curve(group, runs.metrics, "trace/hessian")
            label = (
                f"{LETTERS[varied]} = {value:g}: {_ends(setting, group, runs, value)}"
            )
            canvas.draw_curve(axes, curve, color=colour, label=label)
        canvas.label_axes(axes, setting.title, "epoch", "Tr(H)")
        canvas.mark_empty(axes, "Tr(H) not recorded")
        if axes.get_legend_handles_labels()[1]:
            part.legend(loc="outside lower center", ncols=1, handlelength=1.2)
    return canvas.drawing_of(figure, settings)


def _varied(rows: pd.DataFrame) -> str:
    is_rate = rows["learning_rate"].nunique() > rows["batch_size"].nunique()
    return "learning_rate" if is_rate else "batch_size"


def _ends(setting: Setting, group: pd.DataFrame, runs: Runs, value: float) -> str:
    """The legend's minimum loss and best accuracy, ours and then the paper's."""
    loss = lowest_of(group, runs, "train/loss").mean()
    ours = summarise([100 * v for v in group["best_test_accuracy"].astype(float)])
    paper = PUBLISHED.get(setting.dataset, {}).get(value)
    text = f"ℓ = {loss:.2g}" + ("" if ours is None else f", TA = {ours.mean:.1f}%")
    if paper is not None and not setting.form:
        text += f" (paper {paper:.1f}%)"
    return text


def sets_of(rows: pd.DataFrame, varied: str) -> dict[str, list[float]]:
    """Returns the paper's sets of close values by "A" and "B".

    The values are parted where the ratio of neighbours is largest; A has the small
    learning rates or large batches, which regularise less.
    """
    values = sorted(set(rows[varied].dropna().astype(float)))
    if len(values) < 2:
        return {"A": values, "B": []}
    cut = 1 + int(np.argmax(np.diff(np.log(values))))
    small, large = values[:cut], values[cut:]
    is_rate = varied == "learning_rate"
    return {"A": small, "B": large} if is_rate else {"A": large, "B": small}


def hessian_traces(
    rows: pd.DataFrame, runs: Runs, varied: str
) -> dict[Hashable, pd.DataFrame]:
    """Returns Tr(H) from epoch 10 on by seed: a row a value, a column an epoch.

    Epochs at which a value's run has none are left out; seeds without all values too.
    """
    found: dict[Hashable, pd.DataFrame] = {}
    values = set(rows[varied].dropna())
    for seed, group in rows.groupby("seed"):
        columns = {}
        for index, value in group[varied].items():
            metrics = runs.metrics[index]
            if "trace/hessian" in metrics:
                late = metrics[metrics["epoch"] >= FIRST_EPOCH]
                columns[value] = late.set_index("epoch")["trace/hessian"].dropna()
        table = pd.DataFrame(columns).dropna().T
        if set(table.index) == values and table.shape[1]:
            found[f"seed {seed:g}"] = table.sort_index()
    return found


def rank_agreement(table: Float[np.ndarray, "values epochs"]) -> float:
    """Returns Spearman's ρ over the values, the mean over all pairs of epochs.

    nan below two values or two epochs; epochs at which all values tie do not count.
    """
    if min(table.shape) < 2:
        return np.nan
    frame = pd.DataFrame(table).rank()
    ranks = (frame - frame.mean()).to_numpy()
    norms = np.sqrt((ranks**2).sum(axis=0))
    ranks = ranks[:, norms > 0] / norms[norms > 0]
    agreement = ranks.T @ ranks
    pairs = np.triu_indices(agreement.shape[0], 1)
    return float(agreement[pairs].mean()) if pairs[0].size else np.nan


def _keep_their_order(setting: Setting, runs: Runs) -> Decision | None:
    rows = setting.final
    varied = _varied(rows)
    traces = hessian_traces(rows, runs, varied).items()
    sides = {
        name: pd.DataFrame({seed: table.loc[values].mean() for seed, table in traces})
        for name, values in sets_of(rows, varied).items()
    }
    if sides["A"].empty:
        return None
    return throughout(
        ratio_below(
            sides["B"].loc[epoch].to_dict(),
            sides["A"].loc[epoch].to_dict(),
            1.0,
            names=(f"Tr(H) of B at epoch {epoch:g}", "that of A"),
        )
        for epoch in sides["A"].index
    )


def agreements(
    table: pd.DataFrame, sets: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Returns the mean ``rank_agreement`` across the sets and within them.

    Of groups of rows as large as the smaller set, out of both sets or of one: noisy
    rows that persist agree the more, the more there are. nan where there is no group.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for group in combinations(table.index, min(map(len, sets))):
        is_within = any(set(group) <= set(values) for values in sets)
        found[is_within].append(rank_agreement(table.loc[list(group)].to_numpy()))
    across, within = (float(np.mean(part)) if part else np.nan for part in found)
    return across, within


def _agree_across(setting: Setting, runs: Runs) -> Decision | None:
    rows = setting.final
    varied = _varied(rows)
    sets = list(sets_of(rows, varied).values())
    across, within = {}, {}
    for seed, table in hessian_traces(rows, runs, varied).items():
        across[seed], within[seed] = agreements(table, sets)
    if not across:
        return None
    return larger(across, within, names=("mean ρ across the sets", "within them"))


def _is_more_accurate(setting: Setting, runs: Runs) -> Decision | None:
    rows = setting.final
    varied = _varied(rows)
    sides: Mapping[str, dict[Hashable, float]] = {
        name: by_seed(group, 100 * group["best_test_accuracy"].astype(float))
        for name, values in sets_of(rows, varied).items()
        if len(group := rows[rows[varied].isin(values)])
    }
    if len(sides) < 2:
        return None
    return larger(sides["B"], sides["A"], names=("B", "A"))


def _if_converged(setting: Setting, runs: Runs, *, rule: Rule) -> Decision | None:
    """The rule, undecided where a value's runs stay above the paper's 1e-2."""
    decision = rule(setting, runs)
    rows = setting.final
    varied = _varied(rows)
    for value, group in rows.groupby(varied, sort=True):
        why = unconverged(lowest_of(group, runs, "train/loss"))
        if decision is not None and why:
            return withheld(decision, why, f"{LETTERS[varied]} {value:g}")
    return decision


ITEM = Item(
    name="Figure 14",
    title="Tr(H) along training, by batch size and by learning rate",
    place="appendix A.4",
    experiments=("fig14",),
    published=PUBLISHED,
    figure=FigurePart(
        _draw,
        "Trace of the Hessian, logarithmic axis. Lines are means over seeds, bands one "
        "standard deviation. Not smoothed. ℓ and TA are the minimum training loss and "
        "the maximum test accuracy along training, means over seeds. Set A are the "
        "small learning rates or the large batches, set B the others.",
        "A panel for each data set: Tr(H) against epoch, lines from blue to red by "
        "batch size or learning rate.",
    ),
    claims=(
        Claim(
            "From epoch 10 on Tr(H) of set A stays above that of set B.",
            partial(_if_converged, rule=_keep_their_order),
        ),
        Claim(
            "Epochs agree in the order of Tr(H) more across the sets than within them.",
            partial(_if_converged, rule=_agree_across),
        ),
        Claim(
            "Set B ends more accurate than set A.",
            partial(_if_converged, rule=_is_more_accurate),
        ),
    ),
)
