"""The Fisher Penalty and its rivals, and what adds them to the gradient of a step.

Knows jax, optax and ``curvature``; models, data and the training loop may not come in.
"""

from fisher_jax.curvature.likelihoods import Draw
from fisher_jax.penalties.derivative import RELATIVE_STEP, Method
from fisher_jax.penalties.scalars import (
    fisher_penalty,
    gradient_penalty,
    input_gradient_penalty,
    random_label_penalty,
    single_example_fisher_penalty,
)
from fisher_jax.penalties.stale import (
    StalePenaltyState,
    add_penalty,
    is_penalty_update,
)

__all__ = [
    "RELATIVE_STEP",
    "Draw",
    "Method",
    "StalePenaltyState",
    "add_penalty",
    "fisher_penalty",
    "gradient_penalty",
    "input_gradient_penalty",
    "is_penalty_update",
    "random_label_penalty",
    "single_example_fisher_penalty",
]
