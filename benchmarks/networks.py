"""The networks that are measured, with a batch of random images each.

Times do not depend on the values; where numbers are compared between implementations,
all take the same parameters, images and labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from fisher_jax.curvature import Categorical
from fisher_jax.models import SimpleCNN, WideResNet

NUM_CLASSES = 10


class MLP(nn.Module):
    """Dense layers with an activation between them; images are flattened."""

    widths: tuple[int, ...] = (256, 256)
    num_classes: int = NUM_CLASSES
    activation: str = "relu"

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B ..."], train: bool = False
    ) -> Float[Array, "B C"]:
        """Returns logits; ``train`` changes nothing in this network."""
        del train
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in self.widths:
            hidden = getattr(nn, self.activation)(nn.Dense(width)(hidden))
        return nn.Dense(self.num_classes)(hidden)


class Problem(NamedTuple):
    """A network with parameters and one batch.

    Attributes:
        name: as it is printed.
        title: with its sizes.
        model: a Flax module without batch norm.
        params: its parameters.
        inputs: images [B, H, W, channels].
        labels: [B].
    """

    name: str
    title: str
    model: nn.Module
    params: PyTree
    inputs: Float[Array, "B ..."]
    labels: Int[Array, " B"]

    def logits_fn(self, params: PyTree, inputs: Any) -> Float[Array, "B C"]:
        """The network as ``fisher_jax.curvature`` takes it."""
        return self.model.apply({"params": params}, inputs)

    def loss_fn(self, params: PyTree) -> Float[Array, ""]:
        """Mean cross-entropy of the batch."""
        return jnp.mean(
            Categorical().loss(self.logits_fn(params, self.inputs), self.labels)
        )


def simple_cnn(batch: int = 128, size: int = 32) -> Problem:
    """The paper's CNN on small colour images."""
    title = f"SimpleCNN, {size}x{size}x3, batch {batch}"
    return _problem("SimpleCNN", title, SimpleCNN(NUM_CLASSES), batch, (size, size, 3))


def wide_resnet(
    batch: int = 64, size: int = 32, depth: int = 14, width: int = 1
) -> Problem:
    """A Wide ResNet without batch norm."""
    title = f"Wide ResNet {depth}-{width} (SkipInit), {size}x{size}x3, batch {batch}"
    model = WideResNet(NUM_CLASSES, depth, width, "skip_init")
    return _problem("Wide ResNet", title, model, batch, (size, size, 3))


def mlp(
    batch: int = 128, pixels: int = 784, widths: tuple[int, ...] = (256, 256)
) -> Problem:
    """Dense layers only."""
    sizes = "-".join(str(n) for n in (pixels, *widths, NUM_CLASSES))
    title = f"MLP {sizes}, batch {batch}"
    return _problem("MLP", title, MLP(widths), batch, (1, pixels, 1))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "simple_cnn": simple_cnn,
    "wide_resnet": wide_resnet,
    "mlp": mlp,
}


def _problem(
    name: str, title: str, model: nn.Module, batch: int, shape: tuple[int, int, int]
) -> Problem:
    init_key, input_key, label_key = jax.random.split(jax.random.key(0), 3)
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *shape)))["params"]
    inputs = jax.random.normal(input_key, (batch, *shape))
    labels = jax.random.randint(label_key, (batch,), 0, NUM_CLASSES)
    return Problem(name, title, model, switch_on(params), inputs, labels)


def switch_on(params: PyTree) -> PyTree:
    """Parameters with SkipInit's scalars at 0.5: at 0 residual branches do nothing."""

    def one(path: Any, leaf: Array) -> Array:
        return jnp.full_like(leaf, 0.5) if path[-1].key == "scale" else leaf

    return jax.tree_util.tree_map_with_path(one, params)
