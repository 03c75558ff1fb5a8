"""Whether values with a larger x have a larger y: a permutation test over runs."""

import zlib
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from fisher_jax.report.decide import (
    FAILS,
    HOLDS,
    LEVEL,
    UNDECIDED,
    Decision,
    undecided,
)

MIN_CORRELATED, MIN_VALUES = 6, 3  # runs, and values among them
NUM_DEALS = 999  # random permutations; the smallest p is one in a thousand


def across_values(
    x: Sequence[float],
    y: Sequence[float],
    values: Sequence[Hashable],
    seeds: Sequence[Hashable],
    sign: int,
) -> Decision:
    """Decides whether values with a larger x have a larger y (sign 1) or smaller y.

    The values are those of one column, as a learning rate, that the runs differ in.

    The statistic is the part of the ranks' covariance that lies between values,
    Σ_s n_s x̄_s ȳ_s. It has to be extreme among the 999 that come of dealing anew
    (permutation tests, Fisher 1935, Pitman 1937)

    - the y of all runs: there is no effect of the value on y;
    - the x of all runs: there is none on x;
    - whole runs, each with its x and y: there is none on either, though x and y of
      one run may go together, so that noise among runs of one value decides nothing.

    p is the largest of the three. Where x is the value itself, equal in all its runs,
    the statistic is the covariance and the first alone is needed. Runs of one seed
    share its chance: they are dealt among themselves, with ranks less their mean, and
    runs whose seed no other has among each other. At least 6 runs over 3 values are
    needed.

    Assumed: without an effect runs of one seed are exchangeable. The values are
    these, not a sample of values: of others the runs say nothing (three values are
    in the claimed order by chance in one of six cases, however many runs each has).
    Three values of two runs each are too few to deal: nothing is decided.

    Args:
        seeds: of the runs; nan is a seed of its own.
        sign: 1 or -1, the claimed sign.
    """
    columns = np.asarray(x, float), np.asarray(y, float)
    is_known = np.isfinite(columns[0]) & np.isfinite(columns[1])
    keep: list[int] = np.flatnonzero(is_known).tolist()
    labels = _numbered([values[i] for i in keep])
    num_values = len(set(labels))
    if len(keep) < MIN_CORRELATED or num_values < MIN_VALUES:
        return undecided(
            f"too few runs: {len(keep)} over {num_values} values, at least "
            f"{MIN_CORRELATED} over {MIN_VALUES} are needed"
        )
    blocks = _blocks([seeds[i] for i in keep])
    ranks = [_ranks(column[keep], blocks) for column in columns]
    if not ranks[0].any() or not ranks[1].any():
        return undecided("all runs have the same value")
    is_set = all(len(set(columns[0][keep][labels == s])) == 1 for s in set(labels))
    observed, p = _deal(ranks[0], ranks[1], labels, blocks, is_set=is_set)
    rho = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    where = " within seeds" if len(set(blocks)) > 1 else ""
    evidence = (
        f"ρ = {rho:.2f}{where}, {len(keep)} runs over {num_values} values, p = {p:.2g}"
    ).replace("-", "−")
    if p > LEVEL:
        reason = f"p = {p:.2g}: too small an effect for {len(keep)} runs"
        return Decision(UNDECIDED, reason, evidence, p)
    return Decision(HOLDS if observed * sign > 0 else FAILS, "", evidence, p)


def _deal(
    x: Float[np.ndarray, " N"],
    y: Float[np.ndarray, " N"],
    labels: Int[np.ndarray, " N"],
    blocks: Int[np.ndarray, " N"],
    *,
    is_set: bool,
) -> tuple[float, float]:
    """The statistic of ``across_values`` and the largest p of its deals.

    Args:
        x, y: ranks, each less its block's mean.
        labels: the values' numbers.
        is_set: whether x is the value itself.
    """
    deals = _deals(x, y, blocks)
    if is_set:
        observed = float(x @ y)
        nulls = [y[deals] @ x]
    else:
        members = (labels[:, None] == np.unique(labels)).astype(float)
        members /= np.sqrt(members.sum(axis=0))
        observed = float((x @ members) @ (y @ members))
        dealt_x, dealt_y = x[deals] @ members, y[deals] @ members
        nulls = [dealt_y @ (x @ members), dealt_x @ (y @ members)]
        nulls.append((dealt_x * dealt_y).sum(axis=1))
    edge = abs(observed) - 1e-9 * x.size
    as_extreme = max(int((np.abs(null) >= edge).sum()) for null in nulls)
    return observed, (1 + as_extreme) / (1 + NUM_DEALS)


def _deals(
    x: Float[np.ndarray, " N"],
    y: Float[np.ndarray, " N"],
    blocks: Int[np.ndarray, " N"],
) -> Int[np.ndarray, "R N"]:
    """Random permutations within blocks, the same for the same values.

    Others for other values: with one fixed set of permutations a test would err a
    little more or less often than it says.
    """
    seed = zlib.crc32(np.concatenate([x, y]).tobytes())
    places = np.argsort(blocks, kind="stable")
    shape = NUM_DEALS, blocks.size
    keys = np.random.default_rng(seed).random(shape)
    deals = np.empty(shape, int)
    deals[:, places] = np.argsort(blocks + keys, axis=1)
    return deals


def _blocks(seeds: Sequence[Hashable]) -> Int[np.ndarray, " N"]:
    """A number for each seed that several runs have, and 0 for all other runs."""
    numbers = _numbered(seeds)
    is_shared = np.bincount(numbers)[numbers] > 1
    return np.where(is_shared, numbers + 1, 0)


def _numbered(values: Sequence[Hashable]) -> Int[np.ndarray, " N"]:
    """Distinct values as 0, 1, 2, ...; every nan is a value of its own."""
    known: dict[Hashable, int] = {}
    keys = [v if v == v else (index, "nan") for index, v in enumerate(values)]
    return np.array([known.setdefault(key, len(known)) for key in keys], int)


def _ranks(
    values: Float[np.ndarray, " N"], blocks: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Ranks over all runs, each less the mean of its block."""
    ranks = pd.Series(values).rank().to_numpy()
    sums, counts = np.bincount(blocks, ranks), np.bincount(blocks)
    return ranks - sums[blocks] / counts[blocks]
