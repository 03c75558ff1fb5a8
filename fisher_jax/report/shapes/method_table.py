"""Tables with a column for each method, one declaration each; rows are settings."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from fisher_jax.report.choose import average, for_cell, join_notes, unfinished_note
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.names import DATASETS, METHOD_NAMES, MODELS, position
from fisher_jax.report.statistics import summarise
from fisher_jax.report.tables import Cell, Published, Row, Table

# The columns of tables 1 and 4 to 6, of tables 3, 8 and 9, and of tables 2 and 7.
PENALTY_METHODS = ("eta_star", "baseline", "gp_x", "gp", "fp", "gp_r")
NOISE_METHODS = ("baseline", "mixup", "gp_x", "fp", "gp_r")
BEST_METHODS = ("eta_star", "fp")

# Printed values, or pairs of value and deviation, by (setting,) or (setting, noise).
PrintedRows = Mapping[tuple[str, ...], Sequence[float | tuple[float, float]]]


def method_table(
    name: str,
    title: str,
    place: str,
    experiments: tuple[str, ...],
    *,
    columns: tuple[str, ...],
    published: PrintedRows,
    quantities: tuple[str, ...],
    caption: str,
    claims: tuple[Claim, ...],
    best: str = "",
    noise: float | None = None,
    with_root: bool = False,
    with_green: bool = False,
) -> Item:
    """Returns the item of a table that averages one quantity of runs.

    Accuracies are in %. Rows differ in the share of noisy labels where the published
    ones do.

    Args:
        columns: the paper's methods, by key; others that we have stand behind.
        published: the paper's rows, a value for each column.
        quantities: the first that runs have is averaged.
        best: "max" or "min" of a row is marked; "": max of accuracies, else min.
        noise: the share of noisy labels of the runs that are taken; None: of all.
        with_root: adds the mean of the roots below each row.
        with_green: marks penalties that reach η*'s mean, as the paper's table 1.
    """
    is_accuracy = "accuracy" in quantities[0]
    by_cell = {
        (*row, column): Published(*value if isinstance(value, tuple) else (value,))
        for row, values in published.items()
        for column, value in zip(columns, values, strict=True)
    }
    fill = partial(
        _fill,
        published=by_cell,
        columns=columns,
        quantities=quantities,
        factor=100.0 if is_accuracy else 1.0,
        best=best or ("max" if is_accuracy else "min"),
        noise=noise,
        with_root=with_root,
        with_green=with_green,
    )
    return Item(
        name=name,
        title=title,
        place=place,
        experiments=experiments,
        table=TablePart(fill, caption),
        claims=claims,
        published=by_cell,
    )


def _fill(
    rows: pd.DataFrame,
    runs: Runs,
    *,
    published: Mapping[tuple[str, ...], Published],
    columns: tuple[str, ...],
    quantities: tuple[str, ...],
    factor: float,
    best: str,
    noise: float | None,
    with_root: bool,
    with_green: bool,
) -> Table:
    """Fills the paper's rows and columns, then those that only we have."""
    if noise is not None:
        rows = rows[rows["noise"] == noise]
    ours_only = set(rows["method"]) - set(columns)
    columns += tuple(sorted(ours_only, key=lambda name: position(name, METHOD_NAMES)))
    filled: list[Row] = []
    for label, keys, group in _row_groups(rows, published):
        by_column = {c: group[group["method"] == c] for c in columns}
        cells = {
            column: _cell(chosen, published.get((*keys, column)), quantities, factor)
            for column, chosen in by_column.items()
        }
        filled.append(Row(label, _marked(cells, best, with_green)))
        if with_root:
            roots = {
                column: _root(by_column[column], cell, quantities[0])
                for column, cell in cells.items()
            }
            filled.append(Row(f"{label}, √", _marked(roots, best, with_green)))
    return Table(columns, tuple(filled), len(rows))


def _row_groups(
    rows: pd.DataFrame, published: Mapping[tuple[str, ...], Published]
) -> Iterator[tuple[str, tuple[str, ...], pd.DataFrame]]:
    """Yields label, published key and runs: first the paper's rows, then the others."""
    keys = dict.fromkeys(key[:-1] for key in published)
    by_noise = any(len(key) > 1 for key in keys)
    for key in keys:
        mask = (rows["setting"] == key[0]) & (rows["form"] == "")
        if by_noise:
            mask &= rows["noise"] == float(key[1])
        yield _label(key, rows[mask]), key, rows[mask]
    is_paper = (rows["form"] == "") & rows["setting"].isin([key[0] for key in keys])
    if by_noise:
        is_paper &= rows["noise"].isin([float(key[1]) for key in keys])
    others = rows[~is_paper]
    group_by = ["setting_label", "sweep_setting", "form", "noise"]
    for (label, sweep_setting, form, noise), group in others.groupby(group_by):
        same_label = others[others["setting_label"] == label]
        if same_label["sweep_setting"].nunique() > 1:
            label = f"{label}, {sweep_setting}"
        label += f" ({form})" if form else ""
        yield label + _noise(noise, group), (), group


def _label(key: Sequence[str], rows: pd.DataFrame) -> str:
    dataset, model = next(
        (key[0][: -len(model) - 1], model)
        for model in sorted(MODELS, key=len, reverse=True)
        if key[0].endswith(f"_{model}")
    )
    label = f"{MODELS[model]} / {DATASETS[dataset]}"
    return label + (_noise(float(key[1]), rows) if len(key) > 1 else "")


def _noise(noise: float, rows: pd.DataFrame) -> str:
    if not noise:
        return ""
    effective = rows["effective_noise"].astype(float).mean()
    measured = "" if pd.isna(effective) else f" (effective {100 * effective:.1f}%)"
    return f", {100 * noise:g}% noise{measured}"


def _cell(
    rows: pd.DataFrame,
    published: Published | None,
    quantities: tuple[str, ...],
    factor: float,
) -> Cell:
    chosen = for_cell(rows)
    notes = [chosen.notes, unfinished_note(chosen.rows)]
    ours, reason = None, "no runs"
    for quantity in quantities:
        ours, reason = average(chosen.rows, quantity, factor)
        if ours is not None:
            if quantity != quantities[0]:
                notes.append(("at the last epoch: no validation split",))
            break
    return Cell(ours, published, reason, join_notes(notes) if len(chosen.rows) else ())


def _root(rows: pd.DataFrame, cell: Cell, quantity: str) -> Cell:
    """The cell of the mean of the roots, against the same published value."""
    if cell.ours is None:
        return cell
    roots = for_cell(rows).rows[quantity].astype(float).dropna() ** 0.5
    return cell._replace(ours=summarise(list(roots)))


def _marked(cells: Mapping[str, Cell], best: str, with_green: bool) -> tuple[Cell, ...]:
    """Marks the best of ours, and by the rule of table 1 the green cells."""
    means = {c: cell.ours.mean for c, cell in cells.items() if cell.ours}
    extreme = (max if best == "max" else min)(means.values()) if means else None
    target = means.get("eta_star") if with_green else None
    return tuple(
        cell._replace(
            is_best=len(means) > 1 and means.get(column) == extreme,
            is_green=target is not None
            and column not in ("eta_star", "baseline")
            and means.get(column, target - 1) >= target,
        )
        for column, cell in cells.items()
    )
