"""What a network's outputs mean: a law of targets for each of them.

With J = ∂outputs/∂θ and A the Fisher of that law in the outputs, the Fisher of the
network is F = E_x[Jᵀ A J]. A is block diagonal, one block for each position of an
example, and has a factor, A = S Sᵀ:

| likelihood  | outputs            | loss               | A            | S           |
|-------------|--------------------|--------------------|--------------|-------------|
| Categorical | logits [B, ..., C] | −log softmax_y     | D_p − p pᵀ   | D_√p − p√pᵀ |
| Bernoulli   | logits [B, ...]    | −log σ(±logit)     | D_p(1−p)     | its root    |
| Gaussian(σ) | means [B, ...]     | (y − mean)²/(2 σ²) | I/σ²         | I/σ         |

D_p is the matrix with p on its diagonal.
The loss of an example is the sum over its positions (a mask leaves some out), so A
belongs to whole examples too. A random v with mean 0 and E[v vᵀ] = A gives
E‖Jᵀ v‖² = Tr(Jᵀ A J), at the cost of one backward pass. Such draws:

* "labels": the derivative of the loss for targets that are sampled from the law; for
  Categorical v = p − onehot(ŷ), the paper's (Jastrzebski et al. 2021, section 2).
* "rademacher": v = S z with independent signs z. S z is how kfac-jax multiplies by a
  factor of the Fisher (after Martens, Sutskever and Swersky 2012, arXiv:1206.6464);
  Sun 2025 (arXiv:2505.13614) estimates Tr(F) by signs over outputs.
* "importance", of Categorical: v = ±√(p_c/q_c) (p − onehot(c)) with a random sign and a
  label c drawn with q_c ∝ p_c ‖p − onehot(c)‖², so that all v at a position have one
  length, ‖v‖² = Tr A, and rare labels are neither missed nor weigh too much.

The noise of a draw does not depend on θ and is drawn for the whole batch at once,
[num_draws, B, ...], so that no result depends on how the batch is cut.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fisher_jax import axes, programs, trees

OutputsFn = Callable[[Any, Any], Float[Array, "B *outputs"]]
Mask = Bool[Array, "B *positions"]

Draw = Literal["labels", "rademacher", "importance"]
DRAWS = ("labels", "rademacher", "importance")


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Labels y ~ softmax(logits), logits [B, ..., C]; labels and mask are [B, ...].

    Any number of positions (tokens, pixels) may stand between batch and classes.

    >>> logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
    >>> Categorical().loss(logits, labels).round(3)
    Array([1.386, 1.386], dtype=float32)
    """

    draws: ClassVar[tuple[str, ...]] = DRAWS

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether outputs may have this shape."""
        return len(shape) >= 2

    def expected(self, batch: int) -> str:
        """What outputs are expected, for an error message."""
        return (
            f"outputs_fn: expected floating-point logits [B, C] = [{batch}, C], or "
            f"[{batch}, ..., C] with positions in between"
        )

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of labels and mask for outputs of this shape."""
        return shape[:-1]

    def loss(
        self, outputs: Float[Array, "*B C"], targets: Int[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """−log p_y at every position, in nats: the cross-entropy, at least float32."""
        outputs = at_least_float32(outputs)
        of_targets = jnp.take_along_axis(outputs, targets[..., None], axis=-1)
        return jax.nn.logsumexp(outputs, axis=-1) - of_targets[..., 0]

    def loss_cotangent(
        self, outputs: Float[Array, "*B C"], targets: Int[Array, "*B"]
    ) -> Float[Array, "*B C"]:
        """∂loss/∂outputs = p − onehot(y)."""
        p = jax.nn.softmax(at_least_float32(outputs))
        return _deviation(p, jax.nn.one_hot(targets, p.shape[-1], dtype=jnp.bool_))

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "*B C"]
    ) -> Int[Array, "*B"]:
        """Labels from the law, by the Gumbel-max trick: argmax_c(logits + gumbel)."""
        outputs = at_least_float32(outputs)
        return self._likeliest(
            outputs, jax.random.gumbel(key, outputs.shape, outputs.dtype)
        )

    def uniform(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Int[Array, "*B"]:
        """Labels that are uniform over the classes, for outputs of this shape."""
        return jax.random.randint(key, self.positions(shape), 0, shape[-1])

    def noise(
        self, key: PRNGKeyArray, draw: Draw, shape: tuple[int, ...], dtype: Any
    ) -> PyTree:
        """What ``random_cotangent`` makes a draw of; arrays that begin as ``shape``."""
        if draw == "labels":
            return jax.random.gumbel(key, shape, dtype)
        if draw == "rademacher":
            return jax.random.rademacher(key, shape, dtype)
        uniform_key, sign_key = jax.random.split(key)
        uniforms = jax.random.uniform(uniform_key, (*shape[:-1], 2), dtype)
        return uniforms, jax.random.rademacher(sign_key, (*shape[:-1], 1), dtype)

    def random_cotangent(
        self, draw: Draw, outputs: Float[Array, "*B C"], noise: PyTree
    ) -> Float[Array, "*B C"]:
        """v with E[v vᵀ] = A, differentiable in outputs.

        Sampled labels are constants: ∂v/∂outputs is then A, symmetric. For the others
        it is not symmetric. All stay finite as p → 0.
        """
        outputs = at_least_float32(outputs)
        if draw == "labels":
            return self.loss_cotangent(outputs, self._likeliest(outputs, noise))
        if draw == "rademacher":
            return self.factor_product(outputs, noise)
        return self._importance_cotangent(outputs, *noise)

    def factor_product(
        self, outputs: Float[Array, "*B C"], vector: Float[Array, "*B C"]
    ) -> Float[Array, "*B C"]:
        """S vector: √p_c z_c − p_c Σ_k √p_k z_k; √p is exp of half a log p."""
        root = jnp.exp(0.5 * jax.nn.log_softmax(at_least_float32(outputs)))
        total = jnp.sum(root * vector, axis=-1, keepdims=True)
        product = root * vector - root**2 * total
        likeliest = jnp.argmax(outputs, axis=-1)
        return _summing_to_zero(
            product, jax.nn.one_hot(likeliest, root.shape[-1], dtype=jnp.bool_)
        )

    def covariance_product(
        self, outputs: Float[Array, "*B C"], vector: Float[Array, "*B C"]
    ) -> Float[Array, "*B C"]:
        """A vector = p (vector − its mean under p)."""
        p, centred = _centre(outputs, vector)
        return p * centred

    def variance(
        self, outputs: Float[Array, "*B C"], vector: Float[Array, "*B C"]
    ) -> Float[Array, "*B"]:
        """vectorᵀ A vector ≥ 0 at every position, the variance over c ~ p."""
        p, centred = _centre(outputs, vector)
        return jnp.sum(p * centred**2, axis=-1)

    def column(
        self, outputs: Float[Array, "*P C"], index: Int[Array, ""]
    ) -> Float[Array, "*P C"]:
        """√p_c (p − onehot(c)) of one class at one position of an example, else 0.

        Σ over 0 ≤ index < outputs.size of column columnᵀ is A exactly.
        """
        log_p = jax.nn.log_softmax(at_least_float32(outputs))
        classes = log_p.shape[-1]
        rows = log_p.reshape(-1, classes)
        position, label = index // classes, index % classes
        deviation = _deviation(jnp.exp(rows[position]), jnp.arange(classes) == label)
        row = jnp.exp(0.5 * rows[position, label]) * deviation
        return jnp.zeros_like(rows).at[position].set(row).reshape(log_p.shape)

    def _likeliest(
        self, outputs: Float[Array, "*B C"], noise: Float[Array, "*B C"]
    ) -> Int[Array, "*B"]:
        noisy = jax.lax.stop_gradient(outputs) + noise
        return jnp.argmax(noisy, axis=-1).astype(jnp.int32)

    def _importance_cotangent(
        self,
        outputs: Float[Array, "*B C"],
        uniforms: Float[Array, "*B 2"],
        sign: Float[Array, "*B 1"],
    ) -> Float[Array, "*B C"]:
        """sign √(p_c/q_c) (p − onehot(c)), c ~ q ∝ p_c ‖p − onehot(c)‖², q constant."""
        log_p = jax.nn.log_softmax(outputs)
        length = _squared_deviations(jax.lax.stop_gradient(jnp.exp(log_p)))
        log_q = jax.lax.stop_gradient(log_p) + jnp.log(length)
        label = _drawn_index(log_q, uniforms)
        # With one class, or p = 1 to the last bit, there is no label to draw.
        is_drawn = jnp.isfinite(jnp.take_along_axis(log_q, label, axis=-1))
        log_q = jnp.where(is_drawn, log_q, 0)
        log_p_or_zero = jnp.where(is_drawn, log_p, 0)
        ratio = jnp.take_along_axis(log_p_or_zero - log_q, label, axis=-1)
        log_weight = ratio + jax.nn.logsumexp(log_q, axis=-1, keepdims=True)
        weight = jnp.where(is_drawn, sign * jnp.exp(0.5 * log_weight), 0)
        chosen = jax.nn.one_hot(label[..., 0], log_p.shape[-1], dtype=jnp.bool_)
        return weight * _deviation(jnp.exp(log_p), chosen)

    def check_targets(self, targets: Any, outputs: jax.ShapeDtypeStruct) -> None:
        """Refuses what is no array of class numbers at every position.

        Raises:
            TypeError: if labels are not integers.
            ValueError: if the shape does not fit, or a value is not in 0 .. C − 1.
        """
        shape, classes = self.positions(outputs.shape), outputs.shape[-1]
        expected = f"labels: expected integers {_named(shape)}"
        array = targets if hasattr(targets, "dtype") else np.asarray(targets)
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise TypeError(f"{expected}, got {trees.described(array)}")
        least, greatest = _range(array, shape, expected)
        if least < 0 or greatest >= classes:
            raise ValueError(
                f"{expected} from 0 to {classes - 1}, as there are {classes} "
                f"logits, got values from {least:.0f} to {greatest:.0f} in an array of "
                f"{trees.described(array)}"
            )


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent answers y ∈ {0, 1}, P(y = 1) = σ(logit), one for each output.

    Outputs are logits [B, ...], as [B] or [B, 1] for a binary classifier with one
    sigmoid; targets (numbers from 0 to 1) and mask have their shape.

    >>> Bernoulli().loss(jnp.zeros(2), jnp.array([0, 1])).round(3)
    Array([0.693, 0.693], dtype=float32)
    """

    draws: ClassVar[tuple[str, ...]] = ("labels", "rademacher")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether outputs may have this shape."""
        return len(shape) >= 1

    def expected(self, batch: int) -> str:
        """What outputs are expected, for an error message."""
        return f"outputs_fn: expected floating-point logits [B, ...] = [{batch}, ...]"

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of targets and mask for outputs of this shape."""
        return shape

    def loss(
        self, outputs: Float[Array, "*B"], targets: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """−y log σ(logit) − (1 − y) log σ(−logit), in nats."""
        outputs = at_least_float32(outputs)
        yes = jnp.asarray(targets, outputs.dtype)
        log_yes, log_no = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
        return -yes * log_yes - (1 - yes) * log_no

    def loss_cotangent(
        self, outputs: Float[Array, "*B"], targets: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """∂loss/∂outputs = σ(logit) − y, of terms none of which is lost in rounding."""
        outputs = at_least_float32(outputs)
        yes = jnp.asarray(targets, outputs.dtype)
        return (1 - yes) * jax.nn.sigmoid(outputs) - yes * jax.nn.sigmoid(-outputs)

    def sample(self, key: PRNGKeyArray, outputs: Float[Array, "*B"]) -> Array:
        """Answers from the law: whether logit + logistic noise is positive."""
        outputs = at_least_float32(outputs)
        noise = jax.random.logistic(key, outputs.shape, outputs.dtype)
        return self._answers(outputs, noise)

    def uniform(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Int[Array, "*B"]:
        """Answers of a fair coin, for outputs of this shape."""
        return jax.random.randint(key, shape, 0, 2)

    def noise(
        self, key: PRNGKeyArray, draw: Draw, shape: tuple[int, ...], dtype: Any
    ) -> PyTree:
        """What ``random_cotangent`` makes a draw of."""
        if draw == "labels":
            return jax.random.logistic(key, shape, dtype)
        return jax.random.rademacher(key, shape, dtype)

    def random_cotangent(
        self, draw: Draw, outputs: Float[Array, "*B"], noise: PyTree
    ) -> Float[Array, "*B"]:
        """v with E[v vᵀ] = A, differentiable in outputs; sampled answers are not."""
        outputs = at_least_float32(outputs)
        if draw == "labels":
            return self.loss_cotangent(outputs, self._answers(outputs, noise))
        return self.factor_product(outputs, noise)

    def factor_product(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """S vector = √(p (1 − p)) vector."""
        outputs = at_least_float32(outputs)
        log_variance = jax.nn.log_sigmoid(outputs) + jax.nn.log_sigmoid(-outputs)
        return jnp.exp(0.5 * log_variance) * vector

    def covariance_product(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """A vector = p (1 − p) vector."""
        outputs = at_least_float32(outputs)
        variance = jax.nn.sigmoid(outputs) * jax.nn.sigmoid(-outputs)
        return variance * at_least_float32(vector)

    def variance(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """p (1 − p) vector² at every position."""
        vector = at_least_float32(vector)
        return self.covariance_product(outputs, vector) * vector

    def column(
        self, outputs: Float[Array, "*P"], index: Int[Array, ""]
    ) -> Float[Array, "*P"]:
        """Column ``index`` of S: √(p (1 − p)) at one position, else 0."""
        outputs = at_least_float32(outputs)
        return self.factor_product(outputs, _unit(outputs, index))

    def _answers(self, outputs: Float[Array, "*B"], noise: Float[Array, "*B"]) -> Array:
        return (jax.lax.stop_gradient(outputs) + noise > 0).astype(jnp.int32)

    def check_targets(self, targets: Any, outputs: jax.ShapeDtypeStruct) -> None:
        """Refuses what is no array of numbers from 0 to 1 like the outputs.

        Raises:
            TypeError: if targets are not real numbers.
            ValueError: if the shape does not fit, or a value is out of range.
        """
        expected = f"labels: expected numbers from 0 to 1, {_named(outputs.shape)}"
        array = targets if hasattr(targets, "dtype") else np.asarray(targets)
        if not _is_real(array):
            raise TypeError(f"{expected}, got {trees.described(array)}")
        least, greatest = _range(array, outputs.shape, expected)
        if least < 0 or greatest > 1:
            raise ValueError(
                f"{expected}, got values from {least} to {greatest} in an array of "
                f"{trees.described(array)}"
            )


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Independent y ~ N(output, scale²), one for each output [B, ...]: regression.

    Targets (real numbers) and mask have the shape of the outputs.

    >>> Gaussian(scale=2.0).sample(jax.random.key(0), jnp.zeros((2, 3))).shape
    (2, 3)

    Attributes:
        scale: the standard deviation σ > 0, in the units of the targets.
    """

    scale: float = 1.0
    draws: ClassVar[tuple[str, ...]] = ("labels", "rademacher")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether outputs may have this shape."""
        return len(shape) >= 1

    def expected(self, batch: int) -> str:
        """What outputs are expected, for an error message."""
        return f"outputs_fn: expected floating-point means [B, ...] = [{batch}, ...]"

    def __post_init__(self) -> None:
        """Refuses a scale that is no positive number."""
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)):
            raise TypeError(
                f"scale: expected a Python number, got {trees.described(self.scale)}"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale: expected a positive number, got {self.scale}")

    def positions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of targets and mask for outputs of this shape."""
        return shape

    def loss(
        self, outputs: Float[Array, "*B"], targets: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """(y − output)²/(2 σ²), without the constant log(σ √(2 π)), in nats."""
        outputs = at_least_float32(outputs)
        return 0.5 * ((jnp.asarray(targets, outputs.dtype) - outputs) / self.scale) ** 2

    def loss_cotangent(
        self, outputs: Float[Array, "*B"], targets: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """∂loss/∂outputs = (output − y)/σ²."""
        outputs = at_least_float32(outputs)
        return (outputs - jnp.asarray(targets, outputs.dtype)) / self.scale**2

    def sample(self, key: PRNGKeyArray, outputs: Float[Array, "*B"]) -> Array:
        """Targets from the law: output + σ times normal noise."""
        outputs = at_least_float32(jax.lax.stop_gradient(outputs))
        return outputs + self.scale * jax.random.normal(
            key, outputs.shape, outputs.dtype
        )

    def uniform(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        """Refused: there is no uniform law of real numbers.

        Raises:
            ValueError: always.
        """
        del key, shape
        raise ValueError(
            "likelihood: expected Categorical() or Bernoulli(), whose labels can be "
            f"drawn uniformly, got {self}"
        )

    def noise(
        self, key: PRNGKeyArray, draw: Draw, shape: tuple[int, ...], dtype: Any
    ) -> PyTree:
        """What ``random_cotangent`` makes a draw of."""
        if draw == "labels":
            return jax.random.normal(key, shape, dtype)
        return jax.random.rademacher(key, shape, dtype)

    def random_cotangent(
        self, draw: Draw, outputs: Float[Array, "*B"], noise: PyTree
    ) -> Float[Array, "*B"]:
        """v with E[v vᵀ] = A; sampled targets are constants, so that ∂v/∂outputs = A.

        For signs v does not depend on the outputs at all.
        """
        v: Array = noise / self.scale
        if draw == "rademacher":
            return v
        # Not from output + σ noise, which would round the noise away.
        outputs = at_least_float32(outputs)
        return (outputs - jax.lax.stop_gradient(outputs)) / self.scale**2 - v

    def factor_product(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """S vector = vector/σ."""
        del outputs
        return at_least_float32(vector) / self.scale

    def covariance_product(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """A vector = vector/σ²."""
        del outputs
        return at_least_float32(vector) / self.scale**2

    def variance(
        self, outputs: Float[Array, "*B"], vector: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """(vector/σ)² at every position."""
        return self.factor_product(outputs, vector) ** 2

    def column(
        self, outputs: Float[Array, "*P"], index: Int[Array, ""]
    ) -> Float[Array, "*P"]:
        """Column ``index`` of S: 1/σ at one position, else 0."""
        return _unit(at_least_float32(outputs), index) / self.scale

    def check_targets(self, targets: Any, outputs: jax.ShapeDtypeStruct) -> None:
        """Refuses what is no array of real numbers like the outputs.

        Raises:
            TypeError: if targets are not real numbers.
            ValueError: if the shape does not fit.
        """
        expected = f"labels: expected real numbers {_named(outputs.shape)}"
        array = targets if hasattr(targets, "dtype") else np.asarray(targets)
        if not _is_real(array):
            raise TypeError(f"{expected}, got {trees.described(array)}")
        _check_shape(array, outputs.shape, expected)


Likelihood = Categorical | Bernoulli | Gaussian


@trees.highest_precision
def sample_labels(key: PRNGKeyArray, logits: Float[Array, "*B C"]) -> Int[Array, "*B"]:
    """Labels ŷ ~ softmax(logits) by the Gumbel-max trick: argmax_c(logits + gumbel).

    With the same key and the logits of the whole batch these are the labels drawn by
    ``fisher_penalty(draw="labels")``, and by ``fisher_trace(draw="labels")``,
    ``minibatch_fisher_trace`` and ``layer_fisher_traces(draw="labels")`` with one draw.
    It is ``Categorical().sample`` with its arguments checked.

    >>> logits = jnp.array([[0.0, 100.0], [100.0, 0.0]])
    >>> sample_labels(jax.random.key(0), logits)
    Array([1, 0], dtype=int32)

    Args:
        key: a PRNG key, typed or legacy.
        logits: [..., C], any floating-point dtype; taken in at least float32.

    Returns:
        int32 labels [...]. They are constants for differentiation.

    Raises:
        TypeError: if logits are not floating point, or key is no key.
        ValueError: if logits have no class axis, or key is missing.
    """
    key = trees.checked_key(key)
    if not trees.is_floating(logits):
        raise TypeError(
            "logits: expected a floating-point array [..., C], got "
            f"{trees.described(logits)}"
        )
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits: expected [..., C] with C ≥ 1, got {trees.described(logits)}"
        )
    return Categorical().sample(key, logits)


def checked_outputs(
    outputs_fn: OutputsFn,
    params: PyTree,
    inputs: PyTree,
    likelihood: Likelihood,
    mask: Mask | None,
    *,
    in_parts: bool,
) -> jax.ShapeDtypeStruct:
    """Checks network, inputs, likelihood and mask, without computing outputs.

    Args:
        outputs_fn: the network.
        params: its parameters.
        inputs: [B, ...].
        likelihood: what the outputs mean.
        mask: of positions, or None.
        in_parts: whether the network will see parts of the batch. Random numbers of its
            own would then not be those of the whole: it is warned of them.

    Returns:
        Shape [B, ...] and dtype of the outputs.

    Raises:
        TypeError: if outputs_fn is no function or returns no floating-point array, or
            likelihood or mask are none.
        ValueError: if shapes do not fit.
    """
    batch = trees.batch_size(inputs)
    trees.check_function("outputs_fn", outputs_fn)
    check_likelihood(likelihood)
    program, outputs = jax.make_jaxpr(outputs_fn, return_shape=True)(params, inputs)
    expected = likelihood.expected(batch)
    if not trees.is_floating(outputs):
        raise TypeError(f"{expected}, got {trees.described(outputs)}")
    shape = outputs.shape
    if not likelihood.takes(shape) or shape[0] != batch or 0 in shape:
        raise ValueError(
            f"{expected} for {batch} inputs, got {trees.described(outputs)}"
        )
    if isinstance(likelihood, Categorical) and shape[-1] == 1:
        warnings.warn(
            "outputs_fn: one class only, whose probability is always 1, so every "
            "result is zero. For a sigmoid pass likelihood=Bernoulli()",
            stacklevel=4,
        )
    check_mask(mask, likelihood, shape)
    of_params = len(jax.tree.leaves(params))
    is_input = [i >= of_params for i in range(len(program.jaxpr.invars))]
    if in_parts and programs.draws_for_itself(program, is_input):
        warnings.warn(
            "outputs_fn: draws random numbers (dropout?) with a key that it closes "
            "over; it is called here on parts of the batch, which all get the same "
            "numbers. Turn this off, or pass a key for each example within inputs",
            stacklevel=4,
        )
    return jax.ShapeDtypeStruct(shape, outputs.dtype)


def check_examples_apart(outputs_fn: OutputsFn, params: PyTree, inputs: PyTree) -> None:
    """Refuses a network whose outputs for one example depend on the rest of the batch.

    Outputs of the first half of the batch are compared with those of that half alone.

    Raises:
        ValueError: they differ by more than rounding, or are traced.
    """
    if any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves((params, inputs))):
        raise ValueError("check: expected False under jit, where values are not known")
    half = -(-trees.batch_size(inputs) // 2)
    together = axes.first(outputs_fn(params, inputs), half)
    alone = outputs_fn(params, axes.first(inputs, half))
    difference = float(jnp.max(jnp.abs(together - alone)))
    size = float(jnp.max(jnp.abs(together)))
    if not difference <= float(jnp.finfo(together.dtype).eps) ** 0.5 * size:
        raise ValueError(
            f"outputs_fn: an example's outputs change by up to {difference:.3g} (of "
            f"{size:.3g}) with the rest of its batch, so per-example quantities are "
            "not defined. Put batch normalisation in evaluation mode and turn "
            "dropout off"
        )


def batch_noise(
    key: PRNGKeyArray | None,
    draw: Draw,
    likelihood: Likelihood,
    outputs: jax.ShapeDtypeStruct,
    *,
    num_draws: int = 1,
    axis_name: axes.AxisName = None,
) -> PyTree:
    """The noise of ``num_draws`` draws for a batch, arrays [num_draws, B, ...].

    Args:
        key: a PRNG key, the same on all devices.
        draw: one of the likelihood's draws.
        likelihood: the law.
        outputs: shape [B, ...] and dtype of this device's outputs.
        num_draws: independent draws per example.
        axis_name: inside shard_map, the mesh axes along which the batch is split: the
            noise of the global batch is drawn and this device's rows returned.

    Raises:
        TypeError: if key is no key.
        ValueError: if the key is missing or the likelihood has no such draw.
    """
    check_draw(draw, likelihood)
    key = trees.checked_key(key)
    batch, *rest = outputs.shape
    shape = (num_draws, batch * axes.size(axis_name), *rest)
    noise = likelihood.noise(key, draw, shape, trees.accumulation_dtype(outputs))
    return jax.tree.map(lambda a: axes.own_rows(a, axis_name, axis=1), noise)


def keep(values: Array, mask: Bool[Array, "*B"] | None) -> Array:
    """``values`` [*B, ...] with zeros where the mask, if there is one, is False."""
    if mask is None:
        return values
    more = (1,) * (values.ndim - mask.ndim)
    return jnp.where(mask.reshape(*mask.shape, *more), values, 0)


def at_least_float32(outputs: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Outputs in the precision in which probabilities are computed."""
    return outputs.astype(trees.accumulation_dtype(outputs))


def _deviation(p: Float[Array, "*B C"], onehot: Bool[Array, "*B C"]) -> Array:
    """p − onehot.

    Late in training p_label rounds to one, and p_label − 1 to nothing but rounding.
    """
    return _summing_to_zero(p, onehot)


def _summing_to_zero(
    rows: Float[Array, "*B C"], onehot: Bool[Array, "*B C"]
) -> Float[Array, "*B C"]:
    """The rows with the entry that is marked as minus the sum of the others."""
    others = jnp.where(onehot, 0, rows)
    return jnp.where(onehot, -jnp.sum(others, axis=-1, keepdims=True), others)


def _squared_deviations(p: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """‖p − onehot(c)‖² for every c, of sums over the other classes.

    The likeliest class is kept out of the sums: from a total that holds almost all of
    it, its own deviation could not be told.
    """
    is_likeliest = jax.nn.one_hot(jnp.argmax(p, axis=-1), p.shape[-1], dtype=jnp.bool_)
    most = jnp.max(p, axis=-1, keepdims=True)
    others = jnp.where(is_likeliest, 0, p)
    total = jnp.sum(others, axis=-1, keepdims=True)
    squares = jnp.sum(others**2, axis=-1, keepdims=True)
    of_another = (most + (total - p)) ** 2 + most**2 + (squares - p**2)
    return jnp.where(is_likeliest, total**2 + squares, of_another)


def _drawn_index(
    log_weights: Float[Array, "*B C"], uniforms: Float[Array, "*B 2"]
) -> Int[Array, "*B 1"]:
    """An index drawn in proportion to the weights, by inverting their sums.

    First one of about √C blocks, then one of its √C weights, each by a uniform number
    of its own, so that no weight is below the rounding of a sum over all. A random
    number for every class would cost more than all else in a draw.
    """
    *rest, classes = log_weights.shape
    size = math.ceil(math.sqrt(classes))
    count = -(-classes // size)
    most = jnp.max(log_weights, axis=-1, keepdims=True)
    weights = jnp.exp(log_weights - jnp.where(jnp.isfinite(most), most, 0))
    padding = [(0, 0)] * len(rest) + [(0, count * size - classes)]
    blocks = jnp.pad(weights, padding).reshape(*rest, count, size)
    block = _inverted(jnp.sum(blocks, axis=-1), uniforms[..., :1])
    own = jnp.take_along_axis(blocks, block[..., None], axis=-2)[..., 0, :]
    index = size * block + _inverted(own, uniforms[..., 1:])
    return jnp.minimum(index, classes - 1)


def _inverted(
    weights: Float[Array, "*B n"], uniform: Float[Array, "*B 1"]
) -> Int[Array, "*B 1"]:
    """The first index at which the running sum exceeds uniform times the total."""
    sums = jnp.cumsum(weights, axis=-1)
    reached = jnp.sum(sums <= uniform * sums[..., -1:], axis=-1, keepdims=True)
    return jnp.minimum(reached, weights.shape[-1] - 1)


def _centre(
    logits: Float[Array, "*B C"], tangents: Float[Array, "*B C"]
) -> tuple[Array, Array]:
    """p, and the tangents minus their mean under p."""
    p = jax.nn.softmax(at_least_float32(logits))
    tangents = tangents.astype(p.dtype)
    # Relative to the likeliest class first: its own deviation from the mean, of the
    # order of 1 − p, would otherwise be lost in rounding when p is close to one.
    likeliest = jnp.argmax(p, axis=-1, keepdims=True)
    tangents = tangents - jnp.take_along_axis(tangents, likeliest, axis=-1)
    return p, tangents - jnp.sum(p * tangents, axis=-1, keepdims=True)


def _unit(like: Array, index: Int[Array, ""]) -> Array:
    """The unit vector ``index`` in the shape of an array."""
    return (jnp.arange(like.size) == index).astype(like.dtype).reshape(like.shape)


def check_draw(draw: Draw, likelihood: Likelihood) -> None:
    """Refuses a draw that there is not, or that this likelihood has not.

    Raises:
        ValueError: listing those it has.
    """
    trees.check_choice("draw", draw, DRAWS)
    if draw not in likelihood.draws:
        valid = ", ".join(map(repr, likelihood.draws))
        raise ValueError(
            f"draw: expected one of {valid} for {likelihood}, got {draw!r}"
        )


def check_likelihood(likelihood: Likelihood) -> None:
    """Refuses what is none.

    Raises:
        TypeError: naming those there are.
    """
    if not isinstance(likelihood, Likelihood):
        raise TypeError(
            "likelihood: expected Categorical(), Bernoulli() or Gaussian(), got "
            f"{trees.described(likelihood)}"
        )


def check_mask(mask: Any, likelihood: Likelihood, shape: tuple[int, ...]) -> None:
    """Refuses a mask that is not bool, or not one for each position.

    Raises:
        TypeError: if it is not bool.
        ValueError: if the shape does not fit.
    """
    if mask is None:
        return
    expected = f"mask: expected bool {_named(likelihood.positions(shape))}"
    if getattr(mask, "dtype", None) != jnp.bool_:
        raise TypeError(f"{expected}, got {trees.described(mask)}")
    _check_shape(mask, likelihood.positions(shape), expected)


def _named(shape: tuple[int, ...]) -> str:
    names = "[B]" if len(shape) == 1 else "[B, ...]"
    return f"{names} = {list(shape)}"


def _is_real(array: Any) -> bool:
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(array.dtype, kind) for kind in kinds)


def _check_shape(array: Any, shape: tuple[int, ...], expected: str) -> None:
    if array.shape != shape:
        raise ValueError(f"{expected}, got {trees.described(array)}")


def _range(array: Any, shape: tuple[int, ...], expected: str) -> tuple[float, float]:
    """The least and the greatest value, (0, 0) where they are not known here.

    Those of an array that is traced (an argument of the caller's ``jax.jit``) or partly
    on other machines are not.
    """
    _check_shape(array, shape, expected)
    if isinstance(array, jax.core.Tracer) or array.size == 0:
        return 0, 0
    if not getattr(array, "is_fully_addressable", True):
        return 0, 0
    values = np.asarray(array)
    return float(values.min()), float(values.max())
