"""Tables 1 to 9: ours as mean ± std over seeds, beside the published values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from fisher_jax.report import published
from fisher_jax.report.choose import average, for_cell, join_notes, unfinished_note
from fisher_jax.report.names import DATASETS, METHODS, MODELS, position
from fisher_jax.report.published import Item, Published
from fisher_jax.report.statistics import Summary, summarise

ROOT_REASON = (
    "The paper's section 4 prints values of another order than its section 3 and than "
    "mean squared gradient norms of these networks; they look like norms, not squared "
    "norms. We compute Tr(F) as defined and give its square root for comparison."
)


class Cell(NamedTuple):
    """One cell; without ``ours`` the ``reason`` says why."""

    ours: Summary | None
    published: Published | None
    reason: str = ""
    notes: tuple[str, ...] = ()
    is_best: bool = False
    is_green: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the published value."""
        if self.ours is None or self.published is None:
            return None
        return self.ours.mean - self.published.value


class Row(NamedTuple):
    """A label and a cell for each column."""

    label: str
    cells: tuple[Cell, ...]


class Table(NamedTuple):
    """A finished table; columns are method keys."""

    key: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    decimals: int
    experiments: tuple[str, ...]
    run_count: int


class TableSpec(NamedTuple):
    """What a table of the paper shows."""

    key: str
    item: Item
    caption: str
    experiments: tuple[str, ...]
    columns: tuple[str, ...]
    quantities: tuple[str, ...]  # the first that runs have is taken
    factor: float = 1.0
    best: str = "max"
    decimals: int = 2
    noise: str = "none"  # none: rows are settings; all: noise too; 0.25: that alone
    with_root: bool = False
    green: bool = False


_TABLE_1 = ("table1", "cifar10_simplecnn_fp")
_TABLE_3 = ("table3", "digits_fp")
_ACCURACY = ("test_accuracy_at_best_validation", "test_accuracy")

SPECS = (
    TableSpec(
        "table1",
        published.TABLE_1,
        "Test accuracy in % at the best validation epoch (at the last epoch where "
        "there is no validation split). All columns but η* train with η*/10, on "
        "TinyImageNet η*/30. Green: the small learning rate with a penalty reaches at "
        "least η*'s mean.",
        _TABLE_1,
        published.METHODS,
        _ACCURACY,
        factor=100,
        green=True,
    ),
    TableSpec(
        "table2",
        published.TABLE_2,
        "Test accuracy in % with η* and standard augmentation, without and with FP.",
        ("table2",),
        ("eta_star", "fp"),
        _ACCURACY,
        factor=100,
    ),
    TableSpec(
        "table3",
        published.TABLE_3,
        "Test accuracy in % at the best validation epoch, with a share of the training "
        "labels replaced by uniform draws. A draw may hit the true class, so fewer are "
        "wrong: the effective rate is the one we measured.",
        _TABLE_3,
        published.NOISE_METHODS,
        _ACCURACY,
        factor=100,
        noise="all",
    ),
    TableSpec(
        "table4",
        published.TABLE_4,
        "Maximum of Tr(F) after epoch 1 in the runs of table 1. " + ROOT_REASON,
        _TABLE_1,
        published.METHODS,
        ("max_fisher_trace",),
        best="min",
        with_root=True,
    ),
    TableSpec(
        "table5",
        published.TABLE_5,
        "Seconds of training per epoch in the runs of table 1, measuring left out; "
        "devices differ from the paper's, so only ratios within a row compare.",
        _TABLE_1,
        published.METHODS,
        ("seconds_per_epoch",),
        best="min",
    ),
    TableSpec(
        "table6",
        published.TABLE_6,
        "Final training accuracy in % in the runs of table 1.",
        _TABLE_1,
        published.METHODS,
        ("final_train_accuracy",),
        factor=100,
    ),
    TableSpec(
        "table7",
        published.TABLE_7,
        "Final training accuracy in %, on images as they are, in the runs of table 2.",
        ("table2",),
        ("eta_star", "fp"),
        ("final_train_accuracy",),
        factor=100,
    ),
    TableSpec(
        "table8",
        published.TABLE_8,
        "Final training accuracy in % on the examples whose labels were kept, at 25% "
        "label noise, in the runs of table 3.",
        _TABLE_3,
        published.NOISE_METHODS,
        ("final_train_clean_accuracy",),
        factor=100,
        noise="0.25",
    ),
    TableSpec(
        "table9",
        published.TABLE_9,
        "Final training accuracy in % on the examples whose labels were replaced, that "
        "is, how much was memorised, at 25% label noise, in the runs of table 3.",
        _TABLE_3,
        published.NOISE_METHODS,
        ("final_train_noisy_accuracy",),
        factor=100,
        best="min",
        noise="0.25",
    ),
)


def build_tables(runs: pd.DataFrame) -> tuple[list[Table], dict[str, str]]:
    """Returns the tables that there are runs for, and why the others are missing."""
    tables, missing = [], {}
    for spec in SPECS:
        table = build_table(runs, spec)
        if table.run_count:
            tables.append(table)
        else:
            missing[spec.key] = f"no runs of {' or '.join(spec.experiments)}"
    return tables, missing


def build_table(runs: pd.DataFrame, spec: TableSpec) -> Table:
    """Fills one table: the paper's rows and columns, then those only we have."""
    runs = runs[runs["experiment"].isin(spec.experiments)]
    if spec.noise not in ("none", "all"):
        runs = runs[runs["noise"] == float(spec.noise)]
    columns = spec.columns + tuple(
        sorted(
            set(runs["method"]) - set(spec.columns),
            key=lambda method: position(method, METHODS),
        )
    )
    rows: list[Row] = []
    for label, keys, chosen in _row_groups(runs, spec):
        cells = [_cell(chosen, spec, keys, column) for column in columns]
        rows.append(Row(label, _marked(cells, columns, spec)))
        if spec.with_root:
            roots = [
                _root(chosen, cell, c) for cell, c in zip(cells, columns, strict=True)
            ]
            rows.append(Row(f"{label}, √", _marked(roots, columns, spec)))
    return Table(
        spec.key,
        spec.item.reference,
        spec.caption,
        columns,
        tuple(rows),
        spec.decimals,
        spec.experiments,
        len(runs),
    )


def _row_groups(
    runs: pd.DataFrame, spec: TableSpec
) -> Iterator[tuple[str, tuple[str, ...], pd.DataFrame]]:
    """Yields label, published key and runs: first the paper's rows, then the others."""
    keys = dict.fromkeys(key[:-1] for key in spec.item.values)
    for key in keys:
        mask = (runs["setting"] == key[0]) & ~runs["is_small"].astype(bool)
        if len(key) > 1:
            mask &= runs["noise"] == float(key[1])
        yield _label(key, runs[mask]), key, runs[mask]
    is_paper = ~runs["is_small"].astype(bool) & runs["setting"].isin(
        [key[0] for key in keys]
    )
    if spec.noise != "none":
        is_paper &= runs["noise"].isin([float(key[1]) for key in keys])
    others = runs[~is_paper]
    group_by = ["setting_label", "sweep_setting", "is_small", "noise"]
    for (label, sweep_setting, is_small, noise), group in others.groupby(group_by):
        same_label = others[others["setting_label"] == label]
        if same_label["sweep_setting"].nunique() > 1:
            label = f"{label}, {sweep_setting}"
        label += " (small)" if is_small else ""
        yield label + _noise(noise, group), (), group


def _label(key: Sequence[str], runs: pd.DataFrame) -> str:
    dataset, model = next(
        (key[0][: -len(model) - 1], model)
        for model in sorted(MODELS, key=len, reverse=True)
        if key[0].endswith(f"_{model}")
    )
    label = f"{MODELS[model]} / {DATASETS[dataset]}"
    return label + (_noise(float(key[1]), runs) if len(key) > 1 else "")


def _noise(noise: float, runs: pd.DataFrame) -> str:
    if not noise:
        return ""
    effective = runs["effective_noise"].astype(float).mean()
    measured = "" if pd.isna(effective) else f" (effective {100 * effective:.1f}%)"
    return f", {100 * noise:g}% noise{measured}"


def _cell(
    runs: pd.DataFrame, spec: TableSpec, keys: tuple[str, ...], column: str
) -> Cell:
    value = spec.item.values.get((*keys, column))
    chosen = for_cell(runs[runs["method"] == column])
    notes = [chosen.notes, unfinished_note(chosen.runs)]
    ours, reason = None, "no runs"
    for quantity in spec.quantities:
        ours, reason = average(chosen.runs, quantity, spec.factor)
        if ours is not None:
            if quantity != spec.quantities[0]:
                notes.append(("at the last epoch: no validation split",))
            break
    return Cell(ours, value, reason, join_notes(notes) if len(chosen.runs) else ())


def _root(runs: pd.DataFrame, cell: Cell, column: str) -> Cell:
    """The cell of √Tr(F): the mean of the roots, against the same published value."""
    if cell.ours is None:
        return cell
    chosen = for_cell(runs[runs["method"] == column]).runs
    roots = chosen["max_fisher_trace"].astype(float).dropna() ** 0.5
    return cell._replace(ours=summarise(list(roots)))


def _marked(
    cells: Sequence[Cell], columns: Sequence[str], spec: TableSpec
) -> tuple[Cell, ...]:
    """Marks the best of ours, and by the rule of table 1 the green cells."""
    by_column: Mapping[str, Cell] = dict(zip(columns, cells, strict=True))
    means = {c: cell.ours.mean for c, cell in by_column.items() if cell.ours}
    best = None
    if len(means) > 1:
        best = (max if spec.best == "max" else min)(means.values())
    target = means.get("eta_star") if spec.green else None
    return tuple(
        cell._replace(
            is_best=best is not None and means.get(column) == best,
            is_green=target is not None
            and column not in ("eta_star", "baseline")
            and means.get(column, target - 1) >= target,
        )
        for column, cell in by_column.items()
    )
