"""Every architecture in its forms, small enough to run on two busy cores."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fisher_jax.models import MODELS

NUM_CLASSES = 7


class Small(NamedTuple):
    name: str
    keys: dict[str, Any]
    size: int
    has_batch_norm: bool


SMALL = {
    "vgg11": Small("vgg11", {}, 32, False),
    "densenet": Small("densenet", {"depth": 10, "growth_rate": 4}, 8, True),
    "wide_resnet-batch_norm": Small("wide_resnet", {"depth": 8, "width": 2}, 8, True),
    "wide_resnet-skip_init": Small(
        "wide_resnet", {"depth": 8, "width": 2, "normalisation": "skip_init"}, 8, False
    ),
    "resnet-batch_norm": Small("resnet", {"depth": 8}, 8, True),
    "resnet-weight_norm": Small(
        "resnet", {"depth": 8, "normalisation": "weight_norm"}, 8, False
    ),
    "fixup_resnet": Small("fixup_resnet", {"blocks": (2, 1, 1, 1)}, 32, False),
}
WITH_BATCH_NORM = [form for form, small in SMALL.items() if small.has_batch_norm]
WITHOUT_BATCH_NORM = [form for form in SMALL if form not in WITH_BATCH_NORM]


def build(form: str, dtype: Any = jnp.float32) -> Any:
    small = SMALL[form]
    return MODELS[small.name](num_classes=NUM_CLASSES, dtype=dtype, **small.keys)


def images(form: str, batch_size: int, seed: int = 0) -> np.ndarray:
    size = SMALL[form].size
    shape = (batch_size, size, size, 3)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def initial(form: str) -> Any:
    """Variables at initialisation."""
    return jax.jit(build(form).init)(jax.random.key(0), images(form, 1))


@functools.cache
def eval_logits(form: str) -> np.ndarray:
    """Of two images by the trained variables, in float32."""
    logits = jax.jit(build(form).apply)(trained(form), images(form, 2))
    return jax.device_get(logits)


@functools.cache
def trained(form: str) -> Any:
    """Moves every variable, as training does, so that no zero or one hides a fault."""
    rng = np.random.default_rng(1)

    def moved(leaf: Any) -> np.ndarray:
        if leaf.ndim > 1:
            new = leaf + 0.02 * rng.normal(size=leaf.shape)
        else:  # biases, scalars, statistics: running variances stay positive
            new = leaf * rng.uniform(0.8, 1.2, leaf.shape)
            new = new + rng.uniform(0.05, 0.15, leaf.shape)
        return new.astype(np.float32)

    return jax.tree.map(moved, jax.device_get(initial(form)))
