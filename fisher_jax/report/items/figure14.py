"""Figure 14: Tr(H) along training, by batch size and by learning rate."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from fisher_jax.report import canvas
from fisher_jax.report.canvas import Drawing
from fisher_jax.report.choose import Setting, final_stage, pairs, settings_of
from fisher_jax.report.claims import Claim, Decision, has_sign
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import FigurePart, Item
from fisher_jax.report.statistics import summarise

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
    rows = final_stage(rows)
    settings = settings_of(rows)
    columns = min(2, len(settings))
    num_rows = -(-len(settings) // columns)
    width = canvas.PAGE if columns == 2 else canvas.COLUMN
    figure = Figure(figsize=(width, 2.7 * num_rows))
    parts = figure.subfigures(num_rows, columns, squeeze=False)
    for part, setting in zip(parts.flat, settings, strict=False):
        axes = part.subplots()
        varied, letter = _varied(setting.runs)
        axes.set_yscale("log")
        values = setting.runs[varied].dropna()
        for value, colour in canvas.ordered_colours(list(values)).items():
            group = setting.runs[setting.runs[varied] == value]
            curve = canvas.mean_curve(group, runs.metrics, "trace/hessian")
            label = f"{letter} = {value:g}{_best_accuracy(setting, group, value)}"
            canvas.draw_curve(axes, curve, color=colour, label=label)
        canvas.label_axes(axes, setting.title, "epoch", "Tr(H)")
        canvas.mark_empty(axes, "Tr(H) not recorded")
        if axes.get_legend_handles_labels()[1]:
            part.legend(
                loc="outside lower center", ncols=2, columnspacing=0.8, handlelength=1.2
            )
    return Drawing(figure, len(rows), canvas.notes_of(settings))


def _varied(runs: pd.DataFrame) -> tuple[str, str]:
    is_rate = runs["learning_rate"].nunique() > runs["batch_size"].nunique()
    return ("learning_rate", "η") if is_rate else ("batch_size", "S")


def _best_accuracy(setting: Setting, group: pd.DataFrame, value: float) -> str:
    ours = summarise([100 * v for v in group["best_test_accuracy"].astype(float)])
    paper = PUBLISHED.get(setting.dataset, {}).get(value)
    text = "" if ours is None else f": {ours.mean:.1f}%"
    if paper is not None and not setting.is_small:
        text += f" (paper {paper:.1f}%)"
    return text


def _ends_flatter(setting: Setting, runs: Runs) -> Decision | None:
    rows = final_stage(setting.runs)
    varied, _ = _varied(rows)
    x, y = pairs(rows, varied, "hessian_trace_at_best_test")
    return has_sign(x if varied == "learning_rate" else -x, y, -1)


ITEM = Item(
    name="Figure 14",
    title="Tr(H) along training, by batch size and by learning rate",
    place="appendix A.4",
    experiments=("fig14",),
    published=PUBLISHED,
    figure=FigurePart(
        _draw,
        "Trace of the Hessian, logarithmic axis. Lines are means over seeds, bands one "
        "standard deviation. Not smoothed. Legends give the best test accuracy, ours "
        "and then the paper's.",
        "A panel for each data set: Tr(H) against epoch, lines from blue to red by "
        "batch size or learning rate.",
    ),
    claims=(
        Claim(
            "Large learning rates and small batches end with a smaller Tr(H).",
            _ends_flatter,
        ),
    ),
)
