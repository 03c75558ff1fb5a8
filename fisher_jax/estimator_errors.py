"""How far each estimator of Tr(F) and Tr(H) is off along training, at equal cost.

Every estimator gets the time of four gradients, by XLA's FLOPs of its draws: four draws
of a gradient or of a Jacobian-vector product each, two Hessian-vector products or
second directional derivatives (6 and 4.5 forward passes against a gradient's 3).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from fisher_jax.curvature.fisher import fisher_trace
from fisher_jax.curvature.hessian import hessian_trace
from fisher_jax.curvature.likelihoods import Categorical, OutputsFn

_FISHER: dict[str, dict[str, Any]] = {
    "fisher_labels": {"estimator": "per_example", "draw": "labels"},
    "fisher_rademacher": {"estimator": "per_example", "draw": "rademacher"},
    "fisher_importance": {"estimator": "per_example", "draw": "importance"},
    "minibatch_labels": {"estimator": "minibatch", "draw": "labels"},
    "minibatch_rademacher": {"estimator": "minibatch", "draw": "rademacher"},
    "fisher_forward": {"estimator": "forward"},
}
_HESSIAN: dict[str, dict[str, Any]] = {
    "hessian_gaussian": {"probes": "gaussian", "method": "reverse"},
    "hessian_rademacher": {"probes": "rademacher", "method": "reverse"},
    "hessian_forward": {"probes": "rademacher", "method": "forward"},
}
ESTIMATORS = (*_FISHER, *_HESSIAN)
_FISHER_DRAWS, _HESSIAN_PROBES = 4, 2


def estimator_errors(
    logits_fn: OutputsFn,
    params: PyTree,
    inputs: Any,
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    num_repeats: int,
) -> dict[str, float]:
    """Returns "estimator/NAME" for each of ESTIMATORS: its relative error.

    That is sqrt(mean over repeats of (estimate - exact)^2) / exact, on the same
    examples. The exact value is Tr(F), by all classes; it is Tr(H), too, for networks
    that are piecewise linear in each layer's weights (``hessian_trace``), and only for
    them do the three Hessian estimators' errors mean what they say.

    Args:
        logits_fn: a ``jax.tree_util.Partial``, as in ``measure``.
        labels: those that are trained on, for Tr(H).
        key: repeat r of each estimator uses fold_in(key, r).
    """
    exact = float(_exact(logits_fn, params, inputs))
    errors = {}
    for name in ESTIMATORS:
        values = [
            float(
                _estimate(
                    logits_fn, params, inputs, labels, jax.random.fold_in(key, r), name
                )
            )
            for r in range(num_repeats)
        ]
        squares = (np.array(values) - exact) ** 2
        errors[f"estimator/{name}"] = float(np.sqrt(squares.mean()) / exact)
    return {"estimator/exact": exact, **errors}


@jax.jit
def _exact(logits_fn: OutputsFn, params: PyTree, inputs: Any) -> Float[Array, ""]:
    return fisher_trace(logits_fn, params, inputs, estimator="exact").mean


@partial(jax.jit, static_argnames=("name",))
def _estimate(
    logits_fn: OutputsFn,
    params: PyTree,
    inputs: Any,
    labels: Int[Array, " B"],
    key: Key[Array, ""],
    name: str,
) -> Float[Array, ""]:
    if name in _FISHER:
        return fisher_trace(
            logits_fn, params, inputs, key, num_draws=_FISHER_DRAWS, **_FISHER[name]
        ).mean

    def mean_loss(p: PyTree) -> Float[Array, ""]:
        return jnp.mean(Categorical().loss(logits_fn(p, inputs), labels))

    return hessian_trace(
        mean_loss, params, key, num_probes=_HESSIAN_PROBES, **_HESSIAN[name]
    ).mean
