"""Tables with a column for each method, one declaration each; rows are settings."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from fisher_jax.report.choose import (
    REFERENCES,
    Chosen,
    Setting,
    average,
    join_notes,
    settings_of,
    unfinished_note,
)
from fisher_jax.report.claims import Claim
from fisher_jax.report.collect import Runs
from fisher_jax.report.item import Item, TablePart
from fisher_jax.report.names import DATASETS, MODELS, in_method_order
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
        quantities: of each run the first that it has is averaged.
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
    settings = settings_of(rows, by_noise=True)
    if noise is not None:
        settings = [s for s in settings if (s.rows["noise"] == noise).all()]
        rows = rows[rows["noise"] == noise]
    columns += tuple(in_method_order(set(rows["method"]) - set(columns)))
    filled: list[Row] = []
    for setting, keys in _with_keys(settings, published, rows.iloc[:0]):
        chosen = {column: setting.best(column) for column in columns}
        cells = {
            column: _cell(
                chosen[column],
                setting.other_code,
                published.get((*keys, column)),
                quantities,
                factor,
            )
            for column in columns
        }
        label = _label(setting)
        filled.append(Row(label, _marked(cells, best, with_green)))
        if with_root:
            roots = {
                column: _root(chosen[column], cell, quantities[0])
                for column, cell in cells.items()
            }
            filled.append(Row(f"{label}, √", _marked(roots, best, with_green)))
    return Table(columns, tuple(filled), len(rows))


def _with_keys(
    settings: Sequence[Setting],
    published: Mapping[tuple[str, ...], Published],
    no_rows: pd.DataFrame,
) -> Iterator[tuple[Setting, tuple[str, ...]]]:
    """Yields the settings that claims are decided in, the paper's with its key first.

    Those of the paper that no run is of are there too, empty.
    """
    keys = dict.fromkeys(key[:-1] for key in published)
    for key in keys:
        missing = Setting(_published_label(key), no_rows, (), "", "")
        for setting in [s for s in settings if _is_of(s, key)] or [missing]:
            yield setting, key
    for setting in settings:
        if not any(_is_of(setting, key) for key in keys):
            yield setting, ()


def _is_of(setting: Setting, key: tuple[str, ...]) -> bool:
    noise = float(key[1]) if len(key) > 1 else 0.0
    is_of = (setting.key, setting.form) == (key[0], "")
    return is_of and setting.rows["noise"].iloc[0] == noise


def _label(setting: Setting) -> str:
    """The setting's title, with the share of labels that are wrong in the end."""
    effective = setting.rows["effective_noise"].astype(float).mean()
    if pd.isna(effective) or not setting.rows["noise"].any():
        return setting.title
    return f"{setting.title} (effective {100 * effective:.1f}%)"


def _published_label(key: tuple[str, ...]) -> str:
    dataset, model = next(
        (key[0][: -len(model) - 1], model)
        for model in sorted(MODELS, key=len, reverse=True)
        if key[0].endswith(f"_{model}")
    )
    noise = f", {100 * float(key[1]):g}% noise" if len(key) > 1 else ""
    return f"{MODELS[model]} / {DATASETS[dataset]}{noise}"


def _cell(
    chosen: Chosen,
    other_code: tuple[str, ...],
    published: Published | None,
    quantities: tuple[str, ...],
    factor: float,
) -> Cell:
    notes = [other_code, chosen.notes, unfinished_note(chosen.rows)]
    ours, reason = average(chosen.rows, quantities, factor)
    if ours is not None and chosen.rows[quantities[0]].isna().all():
        notes.append(("at the last epoch: no validation split",))
    return Cell(ours, published, reason, join_notes(notes))


def _root(chosen: Chosen, cell: Cell, quantity: str) -> Cell:
    """The cell of the mean of the roots, against the same published value."""
    if cell.ours is None:
        return cell
    roots = chosen.rows[quantity].astype(float).dropna() ** 0.5
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
            and column not in REFERENCES
            and means.get(column, target - 1) >= target,
        )
        for column, cell in cells.items()
    )
