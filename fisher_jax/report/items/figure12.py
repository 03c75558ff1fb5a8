"""Figure 12: the angle between the gradients of clean and of noisy examples."""

from collections.abc import Mapping
from functools import partial

import pandas as pd

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import REFERENCES, Setting
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.decide import Decision, below, undecided
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.names import method_label
from fisher_jax.report.permutation import across_values
from fisher_jax.report.shapes.coefficients import SPREAD, draw_coefficients
from fisher_jax.report.shapes.memorisation import NOISE, noisy_settings
from fisher_jax.report.values import by_seed

METRIC = "gradient/cosine"
PENALISED = ("fp", "gp_r")
EARLY = 0.1  # of the epochs; how long the early phase is, the paper does not say


def _draw(rows: pd.DataFrame, runs: Runs) -> Drawing | str:
    settings = noisy_settings(rows, PENALISED)
    if not settings:
        return "no runs with 25% noisy labels"
    figure, all_axes = canvas.new_figure(len(settings), len(PENALISED), height=2.1)
    coefficients = pd.concat([setting.rows["coefficient"] for setting in settings])
    colours = canvas.coefficient_colours(figure, all_axes, list(coefficients.dropna()))
    for setting, line in zip(settings, all_axes, strict=True):
        name = canvas.plain(setting.title.removesuffix(f", {100 * NOISE:g}% noise"))
        for method, axes in zip(PENALISED, line, strict=True):
            if method in set(setting.rows["method"]):
                _draw_cosines(axes, setting.rows, runs, method, colours)
            else:
                canvas.mark_empty(axes, "not run")
            axes.set_title(f"{name}\n{canvas.method_text(method)}")
    canvas.legend_below(figure, *all_axes.flat)
    return canvas.drawing_of(figure, settings)


def _draw_cosines(
    axes: canvas.Axes,
    rows: pd.DataFrame,
    runs: Runs,
    method: str,
    colours: Mapping[float, tuple[float, ...]],
) -> None:
    shown = rows[rows["method"].isin((method, *REFERENCES))]
    axes.axhline(0, color="#BBBBBB", linewidth=0.7, zorder=0)
    draw_coefficients(axes, shown, runs, METRIC, colours, 1.0, linestyle="-")
    canvas.label_axes(axes, "", "epoch", "cosine of g$_n$ and g$_c$")
    axes.set_ylim(-1, 1)


def early_cosine(rows: pd.DataFrame, runs: Runs) -> pd.Series:
    """Returns each run's mean cosine over the first tenth of its epochs.

    Not at initialisation, which no coefficient has touched.
    """
    means = {}
    for index, num_epochs in rows["num_epochs"].items():
        metrics = runs.metrics[index]
        early = metrics["epoch"].between(0, EARLY * num_epochs, inclusive="right")
        means[index] = metrics.loc[early, METRIC].mean() if METRIC in metrics else None
    return pd.Series(means, dtype=float)


def _is_negative(setting: Setting, runs: Runs, *, method: str) -> Decision | None:
    chosen = setting.best(method).rows
    cosines = early_cosine(chosen, runs)
    if not cosines.notna().any():
        return None
    name = f"early cosine with {method_label(method)}"
    return below(by_seed(chosen, cosines), 0.0, name=name)


def _falls_with_strength(
    setting: Setting, runs: Runs, *, method: str
) -> Decision | None:
    rows = setting.rows[setting.rows["method"].isin((method, "baseline"))]
    strength = rows["coefficient"].astype(float).tolist()
    cosines = early_cosine(rows, runs)
    if not cosines.notna().any() or len(set(strength)) < 2:
        return None
    # Runs of searches count, too, which are of one seed: alone they decide nothing.
    if rows.loc[rows["method"] == method, "seed"].nunique() == 1:
        return undecided("one seed")
    seeds = rows["seed"].tolist()
    return across_values(strength, cosines.tolist(), strength, seeds, -1)


ITEM = Item(
    name="Figure 12",
    title="Cosine of the gradients of clean and noisy examples, by coefficient",
    place="appendix A.3",
    experiments=("fig05", "table3", "digits_fp"),
    figure=FigurePart(
        _draw,
        "25% of the labels are noisy. Cosine between the minibatch gradients of noisy "
        "examples, g_n, and of clean ones, g_c, both of the training set. Grey: no "
        f"penalty. {SPREAD} Not smoothed.",
        "A panel for FP and one for GP_r: the cosine against epoch, a line for each "
        "coefficient from blue to red, around a grey line at zero.",
    ),
    claims=tuple(
        claim
        for method in PENALISED
        for claim in (
            Claim(
                f"{method_label(method)}: in the early phase (the first tenth) the "
                "cosine is negative.",
                partial(_is_negative, method=method),
                NOISE,
            ),
            Claim(
                f"{method_label(method)}: the stronger, the more negative it is.",
                partial(_falls_with_strength, method=method),
                NOISE,
            ),
        )
    ),
)
