"""One curve per coefficient, from blue to red: what several figures share."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from fisher_jax.report.collect import Runs
from fisher_jax.report.figures import canvas

SPREAD = "Colour runs from blue (small α) to red (large α); lines are means over seeds."
REFERENCES = ("eta_star", "baseline")  # methods without a coefficient


def penalised(rows: pd.DataFrame) -> list[float]:
    """Returns the coefficients of the penalised runs."""
    kept = rows.loc[~rows["method"].isin(REFERENCES), "coefficient"].dropna()
    return [float(value) for value in kept]


def coefficient_groups(
    runs: pd.DataFrame, colours: Mapping[float, tuple[float, ...]]
) -> list[tuple[float | None, dict[str, Any]]]:
    """Returns each α (None: no penalty, first) with how its line looks."""
    found: list[tuple[float | None, dict[str, Any]]] = []
    for method in ("eta_star", "baseline"):
        if (runs["method"] == method).any():
            found.append((None, canvas.method_line("baseline")))
            break
    present = set(penalised(runs))
    found += [(a, {"color": c}) for a, c in colours.items() if a in present]
    if len(colours) < 2:
        # There is no bar of colours that would say which line is which.
        for coefficient, line in found:
            line["label"] = coefficient_label(coefficient)
    return found


def coefficient_label(coefficient: float | None) -> str:
    """Returns how a legend names a coefficient; None: no penalty."""
    return "no penalty" if coefficient is None else f"α = {coefficient:g}"


def of_coefficient(runs: pd.DataFrame, coefficient: float | None) -> pd.Series:
    """Returns which runs have the coefficient; None: no penalty."""
    is_reference = runs["method"].isin(REFERENCES)
    if coefficient is None:
        return is_reference
    return ~is_reference & (runs["coefficient"] == coefficient)


def draw_coefficients(
    axes: Axes,
    rows: pd.DataFrame,
    runs: Runs,
    name: str,
    colours: Mapping[float, tuple[float, ...]],
    factor: float,
    linestyle: str | None = None,
) -> None:
    """Draws a metric's mean curve for each coefficient, and without a penalty."""
    for coefficient, line in coefficient_groups(rows, colours):
        group = rows[of_coefficient(rows, coefficient)]
        curve = canvas.mean_curve(group, runs.metrics, name, factor=factor)
        styled = line if linestyle is None else line | {"linestyle": linestyle}
        canvas.draw_curve(axes, curve, **styled)


def finish_panel(axes: Axes, label: str) -> None:
    """Labels a panel against epoch, and says so if nothing is in it."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    canvas.mark_empty(axes)
