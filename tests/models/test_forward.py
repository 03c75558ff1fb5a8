"""What holds of every network's forward and backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.reference import REFERENCES
from tests.models.small import (
    NUM_CLASSES,
    SMALL,
    WITH_BATCH_NORM,
    WITHOUT_BATCH_NORM,
    build,
    eval_logits,
    images,
    initial,
    trained,
)
from tests.tiers import some


@pytest.mark.parametrize("form", SMALL)
def test_logits_equal_an_independent_implementation(form):
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), trained(form))
    expected = REFERENCES[form](variables, images(form, 2).astype(np.float64))
    scale = np.abs(expected).max()
    assert np.std(expected, axis=0).max() > 1e-3 * scale, "the images make a difference"
    np.testing.assert_allclose(eval_logits(form), expected, atol=2e-5 * scale)


def loss(form, params, inputs, dtype=jnp.float32, train=True):
    """Mean cross-entropy with all labels 0, from float32 logits."""
    variables = {**trained(form), "params": params}
    logits, _ = build(form, dtype).apply(
        variables, inputs, train=train, mutable=["batch_stats"]
    )
    assert logits.dtype == dtype
    return -jnp.mean(jax.nn.log_softmax(logits.astype(jnp.float32))[:, 0])


@pytest.mark.parametrize(
    ("form", "dtype"),
    some(
        [(form, jnp.float32) for form in SMALL]
        + [
            ("resnet-batch_norm", jnp.bfloat16),
            ("resnet-weight_norm", jnp.bfloat16),
        ],
        [
            ("wide_resnet-skip_init", jnp.float32),
            ("resnet-weight_norm", jnp.float32),
            ("resnet-batch_norm", jnp.bfloat16),
        ],
    ),
)
def test_loss_and_gradients_are_finite_and_float32(form, dtype):
    params = trained(form)["params"]
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: loss(form, p, images(form, 4), dtype))
    )(params)
    assert np.isfinite(value)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert leaf.dtype == np.float32, name
        assert np.all(np.isfinite(leaf)), name
        assert np.any(leaf != 0), f"{name} takes no part"


@pytest.mark.parametrize("form", some(SMALL, ["resnet-batch_norm", "fixup_resnet"]))
def test_bfloat16_computes_and_float32_stores(form):
    inputs = images(form, 2)
    model = build(form, jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    # Not jitted: XLA:CPU of jax 0.12 fuses two bfloat16 convolutions of 128 channels
    # and more into one YNNPACK call, which returns zeros, NaN or garbage.
    logits, exact = model.apply(trained(form), inputs), eval_logits(form)
    assert logits.dtype == jnp.bfloat16
    # 8 bits of mantissa, a dozen layers deep.
    error = np.abs(np.float32(logits) - exact)
    assert error.max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("form", SMALL)
def test_no_variables_but_parameters_and_batch_statistics(form):
    collections = {"params"} | ({"batch_stats"} if form in WITH_BATCH_NORM else set())
    assert set(initial(form)) == collections
    _, changed = jax.eval_shape(
        lambda x: build(form).apply(initial(form), x, train=True, mutable=True),
        images(form, 4),
    )
    assert set(changed) <= collections
    # Without anything mutable a network without batch norm trains all the same.
    if form in WITHOUT_BATCH_NORM:
        jax.eval_shape(
            lambda x: build(form).apply(initial(form), x, train=True), images(form, 4)
        )


def others_moved(form, train):
    """How far logits of images 1, 2 move when image 0 changes; and those of image 0."""
    inputs = images(form, 3)
    tangent = np.zeros_like(inputs)
    tangent[0] = images(form, 1, seed=5)[0]

    def logits_fn(x):
        return build(form).apply(
            trained(form), x, train=train, mutable=["batch_stats"]
        )[0]

    _, moved = jax.jit(lambda x, t: jax.jvp(logits_fn, (x,), (t,)))(inputs, tangent)
    return np.abs(moved[1:]).max(), np.abs(moved[0]).max()


@pytest.mark.parametrize("form", WITHOUT_BATCH_NORM)
def test_examples_are_independent_without_batch_norm(form):
    others, itself = others_moved(form, train=True)
    assert others == 0
    assert itself > 0


@pytest.mark.parametrize("form", some(WITH_BATCH_NORM, ["resnet-batch_norm"]))
def test_batch_norm_ties_examples_together_in_train_mode_only(form):
    others, itself = others_moved(form, train=False)
    assert others == 0
    assert itself > 0
    others, _ = others_moved(form, train=True)
    assert others > 0


def test_per_example_gradients_average_to_the_batch_s():
    form = "wide_resnet-skip_init"
    params, inputs = trained(form)["params"], images(form, 3)

    def mean_loss(p, x):
        return loss(form, p, x)

    each = jax.jit(jax.vmap(jax.grad(mean_loss), (None, 0)))(params, inputs[:, None])
    whole = jax.jit(jax.grad(mean_loss))(params, inputs)
    for one, other in zip(jax.tree.leaves(each), jax.tree.leaves(whole), strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one.mean(axis=0), other, atol=2e-4 * scale)


def test_every_form_gives_as_many_logits_as_classes():
    for form in SMALL:
        shape = jax.eval_shape(build(form).apply, initial(form), images(form, 3)).shape
        assert shape == (3, NUM_CLASSES)
