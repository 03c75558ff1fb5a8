"""How an experiment file describes its sweep's runs; ``launch/sweep.py`` runs them.

A file with a sweep has

    get_config(arg) -> ConfigDict              # arg: "" the paper's scale, or a form
    get_sweep(arg) -> list of override dicts   # flat, each against get_config(arg)

Where its runs need labels or are tuned it has instead

    get_runs(arg, winners) -> list of SweepRun
    get_config, get_sweep = entry_points(get_runs)

``winners`` maps a search's name to the value that won; a run that needs a winner which
is not there yet is left out, and asked for again once its search has ended. With
``winners=None`` each search is taken to be won by its documented reading, so that all
runs are listed; ``get_sweep`` is that list without the labels, against the first run.

An override ``train.init_from = "OUT/NAME"`` means: from the parameters of the run NAME
of the same sweep, whatever folder OUT it is written to. Such a run waits for NAME.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from fisher_jax.run_files import FORMS, flatten

# Smaller than the paper's: on digits, and on a part of CIFAR-10.

Winners = Mapping[str, float]
Changes = Mapping[str, Any]


class Search(NamedTuple):
    """A value that is tuned: the search's name in selection.json, and the key."""

    name: str
    key: str


class SweepRun(NamedTuple):
    """One run: its whole configuration, and what the report calls it.

    Attributes:
        config: complete, the seed included.
        setting: data set and network, as ``cifar100_vgg11``.
        method: ``eta_star``, ``baseline``, ``fp``, ... as the report knows them.
        group: the values on the sweep's axes, in order, as ``{"coefficient": 0.1}``.
        search: the search of which this run is a candidate; None: a final run.
    """

    config: ConfigDict
    setting: str
    method: str
    group: Mapping[str, float | str]
    search: Search | None = None

    @property
    def name(self) -> str:
        """The run's folder, unique in its sweep; holds no tuned value."""
        axes = [f"{key}_{_short(value)}" for key, value in self.group.items()]
        stage = ["search"] if self.search else []
        seed = f"seed_{self.config.seed}"
        return "-".join([*stage, self.setting, self.method, *axes, seed])


def changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    """Returns a copy of the configuration with the changes, {"section.key": value}."""
    copy = config.copy_and_resolve_references()
    copy.lock()
    copy.update_from_flattened_dict(dict(changes))
    return copy


def entry_points(
    get_runs: Callable[[str], list[SweepRun]],
) -> tuple[Callable[..., ConfigDict], Callable[..., list[dict[str, Any]]]]:
    """Returns ``get_config(arg="")`` and ``get_sweep(arg="")`` of a file's runs.

    main.py trains what ``get_config`` returns, the first run alone, which where values
    are tuned is a candidate of a search.
    """

    def get_config(arg: str = "") -> ConfigDict:
        """Returns the first run; the others are changes of it."""
        return get_runs(arg)[0].config

    def get_sweep(arg: str = "") -> list[dict[str, Any]]:
        """Returns every run's overrides, searches won by the documented readings."""
        runs = get_runs(arg)
        return [differences(runs[0].config, run.config) for run in runs]

    return get_config, get_sweep


def varied(run: SweepRun, key: str, values: Iterable[float]) -> list[SweepRun]:
    """Returns the run with each value of a key, which becomes an axis of the sweep."""
    axis = key.rpartition(".")[2]
    return [
        run._replace(
            config=changed(run.config, {key: value}), group={**run.group, axis: value}
        )
        for value in values
    ]


def candidates(
    run: SweepRun, search: Search, values: Sequence[float]
) -> list[SweepRun]:
    """Returns one candidate of the search for each value of its key."""
    return [one._replace(search=search) for one in varied(run, search.key, values)]


def searched(
    run: SweepRun,
    search: Search,
    values: Sequence[float],
    seeds: Iterable[int],
    winners: Winners | None,
) -> list[SweepRun]:
    """Returns a search's candidates and, once it is won, the winner with each seed.

    The run's own value of the key is the documented reading.
    """
    runs = candidates(run, search, values)
    reading = flatten(run.config.to_dict())[search.key]
    best = winner(winners, search, reading)
    if best is None:
        return runs
    final = run._replace(config=changed(run.config, {search.key: best}))
    return runs + over_seeds(final, seeds=seeds)


def winner(winners: Winners | None, search: Search, reading: float) -> float | None:
    """Returns the value that won; the documented reading if winners are not asked for.

    None: the search has not ended.
    """
    return reading if winners is None else winners.get(search.name)


def taken(winners: Winners | None, search: Search, reading: float) -> float:
    """Returns what another sweep chose (``--winners``), else the documented reading."""
    return (winners or {}).get(search.name, reading)


def over_seeds(*runs: SweepRun, seeds: Iterable[int]) -> list[SweepRun]:
    """Returns each run with each seed."""
    return [
        run._replace(config=changed(run.config, {"seed": seed}))
        for run in runs
        for seed in seeds
    ]


def differences(base: ConfigDict, config: ConfigDict) -> dict[str, Any]:
    """Returns {"section.key": value} for the keys in which ``config`` differs."""
    before = flatten(base.to_dict())
    return {
        key: value
        for key, value in flatten(config.to_dict()).items()
        if key not in before or before[key] != value
    }


def log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """Returns ``count`` values from low to high, equal in ratio, at 6 digits."""
    step = (high / low) ** (1 / (count - 1))
    return tuple(float(f"{low * step**index:.6g}") for index in range(count))


def check_arg(file: str, arg: str, variants: Sequence[str] = FORMS) -> None:
    """Raises ValueError unless the text after ``:`` is empty or a known variant."""
    if arg and arg not in variants:
        raise ValueError(f"unknown variant {arg!r} of {file}, one of {list(variants)}")


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
