"""The methods that experiments compare, as changes to a setting's configuration.

A setting's file passes its best learning rate and takes one of the results by name.

Paper (section 4, appendices C and I.2): FP, f = 10; alpha from a grid with the centre
v, 0.01 for FP, GP and GP_r, larger for GP_x where that was needed.

Open: f of GP, GP_r and GP_x, 10 here like FP's. What GP_x reduces over: here the mean
over the examples of the squared norms of their input gradients. v of GP_x, 1 here. GP_r
is printed with a derivative in the input, surely meant in the parameters.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

Changes = Mapping[str, Any]

# v of the paper, the centre of its grid of 10 log-spaced coefficients in
# [0.1 v, 10 v]. "Larger for GP_x" is all that it says of that one.
COEFFICIENT = 0.01
INPUT_GRADIENT_COEFFICIENT = 1.0
# RFP bears more than FP where the penalty's gradient is stale (docs/results.md).
RFP_COEFFICIENT = 0.03

PENALTY_CHANGES: dict[str, Changes] = {
    "gp_x": {
        "penalty.name": "input_gradient",
        "penalty.coefficient": INPUT_GRADIENT_COEFFICIENT,
    },
    "gp": {"penalty.name": "gradient", "penalty.coefficient": COEFFICIENT},
    "fp": {"penalty.name": "fisher", "penalty.coefficient": COEFFICIENT},
    "gp_r": {"penalty.name": "random_label", "penalty.coefficient": COEFFICIENT},
    "rfp": {
        "penalty.name": "fisher",
        "penalty.draw": "rademacher",
        "penalty.coefficient": RFP_COEFFICIENT,
    },
}

# The Fisher penalty by each of its draws, and with the batch in groups, whose
# gradients are less noisy (docs/theory.md).
DRAWS: dict[str, Changes] = {
    "fp": PENALTY_CHANGES["fp"],
    "rfp": PENALTY_CHANGES["rfp"],
    "importance": {**PENALTY_CHANGES["rfp"], "penalty.draw": "importance"},
}
GROUPED: dict[str, Changes] = {
    f"{name}_groups": {**changes, "penalty.num_groups": 8}
    for name, changes in DRAWS.items()
}


def noisy(eta_star: float, noise: float) -> Changes:
    """Returns the changes of a run on wrong labels: eta*, no weight decay (I.3)."""
    return {
        "optimizer.learning_rate": eta_star,
        "optimizer.weight_decay": 0.0,
        "dataset.label_noise": noise,
    }


def table_1(eta_star: float, baseline: float) -> dict[str, Changes]:
    """Returns {name: changes} for the columns of table 1, and RFP.

    Args:
        eta_star: the best learning rate without a penalty.
        baseline: the learning rate of all other columns.
    """
    slow = {"optimizer.learning_rate": baseline}
    return {
        "eta_star": {"optimizer.learning_rate": eta_star},
        "baseline": slow,
        **{name: {**slow, **penalty} for name, penalty in PENALTY_CHANGES.items()},
    }


def table_2(eta_star: float) -> dict[str, Changes]:
    """Returns {name: changes} for the columns of table 2: the best rate, augmented.

    Args:
        eta_star: the best learning rate without a penalty.
    """
    augmented = {
        "optimizer.learning_rate": eta_star,
        "dataset.augment": "standard",
    }
    return {
        "eta_star_augmented": augmented,
        "fp_augmented": {**augmented, **PENALTY_CHANGES["fp"]},
    }


def apply(config: ConfigDict, variants: Mapping[str, Changes], name: str) -> ConfigDict:
    """Returns the configuration changed as a variant says.

    Raises:
        ValueError: there is no such variant.
    """
    if name not in variants:
        raise ValueError(f"unknown variant {name!r}, one of {', '.join(variants)}")
    config.update_from_flattened_dict(dict(variants[name]))
    return config
