"""What a sweep's searches chose, by validation accuracy, and how sure that is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fisher_jax.errors import UserError
from fisher_jax.run_files import DIVERGED, FINISHED, read_json
from launch.definition import PlannedRun

# A search's candidates are compared by the first of these that they all have.
SCORES = ("best_validation_accuracy", "best_test_accuracy")


def searches(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """Returns the candidates of each search, by its name."""
    found: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.search is not None:
            found.setdefault(run.search.name, []).append(run)
    return found


def choose(
    candidates: Sequence[PlannedRun], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the entry of selection.json for one search.

    The highest score wins, at equal scores the candidate that comes first. A diverged
    run has no score. Without a validation split the best test accuracy decides, and
    the entry says so.

    Args:
        results: result.json of each, by name.

    Raises:
        UserError: no candidate has a score.
    """
    search = candidates[0].search
    assert search is not None
    ended = [run for run in candidates if results[run.name].get("status") != "diverged"]
    by = next(
        (
            name
            for name in SCORES
            if ended and all(results[r.name].get(name) is not None for r in ended)
        ),
        None,
    )
    if by is None:
        raise UserError(
            f"nothing can be chosen for {search.name}: all {len(candidates)} runs "
            "diverged"
            if not ended
            else f"nothing can be chosen for {search.name}: its runs recorded neither "
            "validation nor test accuracy"
        )
    scores = {run.name: float(results[run.name][by]) for run in ended}
    best = max(ended, key=lambda run: scores[run.name])
    grid = sorted(float(run.value or 0) for run in candidates)
    return {
        "key": search.key,
        "value": best.value,
        "run": best.name,
        "by": by,
        "at_edge": len(grid) > 1 and best.value in (grid[0], grid[-1]),
        "candidates": [
            {
                "run": run.name,
                "value": run.value,
                "score": scores.get(run.name),
                "status": results[run.name].get("status"),
            }
            for run in candidates
        ],
    }


def read_results(
    out: Path, runs: Sequence[PlannedRun]
) -> dict[str, dict[str, Any]] | None:
    """Returns result.json of each run by name; None while one has not ended."""
    results = {run.name: read_json(out / run.name / "result.json") for run in runs}
    has_ended = all(
        result.get("status") in (FINISHED, DIVERGED) for result in results.values()
    )
    return results if has_ended else None


def winners_of(selection: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the value that won each search."""
    return {name: entry["value"] for name, entry in selection.items()}


def read_selection(path: Path) -> dict[str, dict[str, Any]]:
    """Reads a selection.json given by the user.

    Raises:
        UserError: it is not one.
    """
    selection = read_json(path)
    if not selection or not all(
        isinstance(entry, dict) and "value" in entry for entry in selection.values()
    ):
        raise UserError(f"{path} is empty or is not the selection.json of a sweep")
    return selection


def edge_warnings(selection: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a line for each winner at the edge of its grid."""
    return [
        f"{name}: {entry['key']}={entry['value']:g} is at the edge of its grid "
        f"({_range(entry)}); a wider one may do better"
        for name, entry in selection.items()
        if entry.get("at_edge")
    ]


def _range(entry: Mapping[str, Any]) -> str:
    values = [candidate["value"] for candidate in entry["candidates"]]
    return f"{min(values):g} to {max(values):g}"
