"""Curves against epoch or step: figures 1, 4, 10, 14, 18 and 19."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fisher_jax.report import published
from fisher_jax.report.choose import for_cell
from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas
from fisher_jax.report.figures.canvas import Drawing, Panel
from fisher_jax.report.names import method_label
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import ROOT_REASON

EPOCH_DECAY = 0.8  # open in the paper; over about five epochs
STEP_DECAY = 0.95  # over about twenty steps
_SPREAD = "Lines are means over seeds, bands one standard deviation."
_TABLE_1 = ("table1", "fig04", "fig10", "cifar10_simplecnn_fp")
_SHOWN = ("eta_star", "baseline", "fp", "gp_x")
_FIRST = ("densenet", "vgg11", "simple_cnn")


def accuracy_name(runs: pd.DataFrame, metrics: Runs) -> str:
    """Returns validation/accuracy, or test/accuracy where nothing was set aside."""
    has = any("validation/accuracy" in metrics.metrics[i] for i in runs.index)
    return "validation/accuracy" if has else "test/accuracy"


def figure_1(runs: Runs) -> Drawing | str:
    """Validation accuracy and Tr(F) for a large and a small learning rate."""
    rows = canvas.run_rows(runs, ("fig01",))
    if not len(rows):
        return "no runs of fig01"
    panels = canvas.panels_of(rows)
    figure, all_axes = canvas.new_figure(len(panels), 2, height=2.0)
    for panel, (left, right) in zip(panels, all_axes, strict=True):
        colours = canvas.ordered_colours(list(panel.runs["learning_rate"]))
        accuracy = accuracy_name(panel.runs, runs)
        # The large rate is good, as the paper draws it: blue for large, red for small.
        flipped = dict(zip(colours, reversed(list(colours.values())), strict=True))
        for rate, group in panel.runs.groupby("learning_rate", sort=True):
            line = {"color": flipped[rate], "label": f"η = {rate:.3g}"}
            curve = canvas.mean_curve(group, runs.metrics, accuracy, factor=100)
            canvas.draw_curve(left, curve, **line)
            curve = canvas.mean_curve(group, runs.metrics, "trace/fisher")
            canvas.draw_curve(right, curve, **line)
        _label(left, panel.title, "epoch", f"{_word(accuracy)} accuracy, %")
        _label(right, panel.title, "epoch", "Tr(F)")
        canvas.start_at_zero(right)
        canvas.add_root_axis(right)
        left.legend()
    return Drawing(
        "figure1",
        "A small learning rate lets Tr(F) explode early",
        figure,
        f"Accuracy and Tr(F) against epoch for two learning rates. {_SPREAD} Not "
        f"smoothed. {ROOT_REASON}",
        "Two panels against epoch: accuracy is higher and Tr(F) stays lower for the "
        "larger of the two learning rates if the paper's claim holds.",
        ("fig01",),
        len(rows),
        canvas.notes_of(panels),
    )


def figure_4(runs: Runs) -> Drawing | str:
    """Validation accuracy and Tr(F) of table 1's runs, first settings."""
    return _penalty_curves(runs, "figure4", is_first=True)


def figure_10(runs: Runs) -> Drawing | str:
    """Validation accuracy and Tr(F) of table 1's runs, the other settings."""
    return _penalty_curves(runs, "figure10", is_first=False)


def _penalty_curves(runs: Runs, key: str, *, is_first: bool) -> Drawing | str:
    rows = canvas.run_rows(runs, _TABLE_1)
    rows = rows[rows["method"].isin((*_SHOWN, "rfp"))]
    rows = rows[rows["model"].isin(_FIRST) == is_first]
    if not len(rows):
        return f"no runs of table1 with {'these' if is_first else 'other'} networks"
    panels = canvas.panels_of(rows)
    figure, all_axes = canvas.new_figure(2 * -(-len(panels) // 3), min(3, len(panels)))
    if len(panels) == 1:
        figure.set_figwidth(canvas.COLUMN * 1.15)
    notes = list(canvas.notes_of(panels))
    for line, part in enumerate(canvas.chunks(panels, 3)):
        for column, panel in enumerate(part):
            upper, lower = all_axes[2 * line, column], all_axes[2 * line + 1, column]
            notes += _draw_methods(panel, runs, upper, lower)
            canvas.add_root_axis(lower)
        for column in range(len(part), all_axes.shape[1]):
            all_axes[2 * line, column].set_axis_off()
            all_axes[2 * line + 1, column].set_axis_off()
    canvas.legend_below(figure, *all_axes.flat)
    return Drawing(
        key,
        "Accuracy and Tr(F) along training: η*, a tenth of it, and with penalties",
        figure,
        f"Baseline, FP and GP_x train with η*/10. {_SPREAD} Every run is smoothed by "
        f"an exponential moving average with decay {EPOCH_DECAY:g} per epoch (the "
        "paper does not say how it smooths). Networks are divided between figures 4 "
        "and 10 by us: DenseNet, VGG-11 and SimpleCNN here, wide ResNets there. "
        f"{ROOT_REASON}",
        "For each setting accuracy above and Tr(F) below against epoch, a line for "
        "each method.",
        _TABLE_1,
        len(rows),
        tuple(dict.fromkeys(notes)),
    )


def _draw_methods(panel: Panel, runs: Runs, upper: Axes, lower: Axes) -> list[str]:
    accuracy = accuracy_name(panel.runs, runs)
    lower.set_yscale("log")
    notes: list[str] = []
    for method in canvas.in_method_order(list(panel.runs["method"])):
        chosen = for_cell(panel.runs[panel.runs["method"] == method])
        notes += [f"{panel.title}, {method_label(method)}: {n}" for n in chosen.notes]
        line = canvas.method_line(method) | {"label": canvas.method_text(method)}
        for axes, name, factor in (
            (upper, accuracy, 100.0),
            (lower, "trace/fisher", 1.0),
        ):
            curve = canvas.mean_curve(
                chosen.runs, runs.metrics, name, factor=factor, decay=EPOCH_DECAY
            )
            canvas.draw_curve(axes, curve, **line)
    _label(upper, panel.title, "", f"{_word(accuracy)} accuracy, %")
    _label(lower, "", "epoch", "Tr(F)")
    for axes in (upper, lower):
        canvas.mark_empty(axes)
    return notes


def figure_14(runs: Runs) -> Drawing | str:
    """Tr(H) along training for groups of close batch sizes and learning rates."""
    rows = canvas.run_rows(runs, ("fig14",))
    if not len(rows):
        return "no runs of fig14"
    panels = canvas.panels_of(rows)
    columns = min(2, len(panels))
    num_rows = -(-len(panels) // columns)
    width = canvas.PAGE if columns == 2 else canvas.COLUMN
    figure = Figure(figsize=(width, 2.7 * num_rows))
    parts = figure.subfigures(num_rows, columns, squeeze=False)
    for part, panel in zip(parts.flat, panels, strict=False):
        axes = part.subplots()
        varied, letter = _varied(panel.runs)
        axes.set_yscale("log")
        values = panel.runs[varied].dropna()
        for value, colour in canvas.ordered_colours(list(values)).items():
            group = panel.runs[panel.runs[varied] == value]
            curve = canvas.mean_curve(group, runs.metrics, "trace/hessian")
            label = f"{letter} = {value:g}{_best_accuracy(panel, group, value)}"
            canvas.draw_curve(axes, curve, color=colour, label=label)
        _label(axes, panel.title, "epoch", "Tr(H)")
        canvas.mark_empty(axes, "Tr(H) not recorded")
        if axes.get_legend_handles_labels()[1]:
            part.legend(
                loc="outside lower center",
                ncols=2,
                fontsize=6,
                columnspacing=0.8,
                handlelength=1.2,
            )
    return Drawing(
        "figure14",
        "Tr(H) along training, by batch size and by learning rate",
        figure,
        f"Trace of the Hessian, logarithmic axis. {_SPREAD} Not smoothed. Legends "
        "give the best test accuracy, ours and then the paper's.",
        "A panel for each data set: Tr(H) against epoch, lines from blue to red by "
        "batch size or learning rate.",
        ("fig14",),
        len(rows),
        canvas.notes_of(panels),
    )


def _varied(runs: pd.DataFrame) -> tuple[str, str]:
    is_rate = runs["learning_rate"].nunique() > runs["batch_size"].nunique()
    return ("learning_rate", "η") if is_rate else ("batch_size", "S")


def _best_accuracy(panel: Panel, group: pd.DataFrame, value: float) -> str:
    ours = summarise([100 * v for v in group["best_test_accuracy"].astype(float)])
    paper = published.FIGURE_14.get(panel.dataset, {}).get(value)
    text = "" if ours is None else f": {ours.mean:.1f}%"
    if paper is not None and not panel.is_small:
        text += f" (paper {paper:.1f}%)"
    return text


def figure_18(runs: Runs) -> Drawing | str:
    """Tr(F) and minibatch accuracy at every step, by learning rate."""
    return _every_step(runs, "figure18", "fig18", "learning_rate", "η")


def figure_19(runs: Runs) -> Drawing | str:
    """Tr(F) and minibatch accuracy at every step, by batch size."""
    return _every_step(runs, "figure19", "fig19", "batch_size", "S")


def _every_step(
    runs: Runs, key: str, experiment: str, varied: str, letter: str
) -> Drawing | str:
    rows = canvas.run_rows(runs, (experiment,))
    if not len(rows):
        return f"no runs of {experiment}"
    panels = canvas.panels_of(rows)
    figure, all_axes = canvas.new_figure(len(panels), 2, height=2.0)
    for panel, (left, right) in zip(panels, all_axes, strict=True):
        colours = canvas.ordered_colours(list(panel.runs[varied].dropna()))
        for value, group in panel.runs.groupby(varied, sort=True):
            for axes, name, factor in (
                (left, "trace/fisher", 1.0),
                (right, "minibatch/accuracy", 100.0),
            ):
                _draw_steps(
                    axes, group, runs, name, factor, colours[value], value, letter
                )
        _label(left, panel.title, "step", "Tr(F)")
        _label(right, panel.title, "step", "minibatch training accuracy, %")
        for axes in (left, right):
            canvas.mark_empty(axes)
        canvas.start_at_zero(left)
        right.legend(loc="lower right")
    what = "learning rates" if varied == "learning_rate" else "batch sizes"
    return Drawing(
        key,
        f"Tr(F) at every step, for several {what}",
        figure,
        "Tr(F) on 128 examples and the accuracy on the minibatch of the step. Faint: "
        "as measured, of one run; strong: the mean over seeds after an exponential "
        f"moving average with decay {STEP_DECAY:g} per step.",
        f"Tr(F) on the left and minibatch accuracy on the right against the step, a "
        f"colour for each of the {what}.",
        (experiment,),
        len(rows),
        canvas.notes_of(panels),
    )


def _draw_steps(
    axes: Axes,
    group: pd.DataFrame,
    runs: Runs,
    name: str,
    factor: float,
    colour: tuple[float, ...],
    value: float,
    letter: str,
) -> None:
    kwargs: dict[str, Any] = {"x": "step", "factor": factor}
    raw = canvas.mean_curve(group.iloc[:1], runs.metrics, name, **kwargs)
    if raw is not None:
        axes.plot(raw.x, raw.mean, color=colour, alpha=0.25, linewidth=0.6)
    curve = canvas.mean_curve(group, runs.metrics, name, decay=STEP_DECAY, **kwargs)
    canvas.draw_curve(axes, curve, color=colour, label=f"{letter} = {value:g}")


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.01)


def _word(accuracy: str) -> str:
    return accuracy.split("/")[0]
