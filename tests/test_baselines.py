import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from fisher_jax import baselines


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def quadratic(params):
    return 0.5 * params["w"] @ jnp.diag(jnp.asarray([1.0, 3.0])) @ params["w"]


def test_mixup_mixes_with_a_permutation_of_the_batch():
    inputs = jnp.arange(24.0).reshape(6, 2, 2)
    labels = jnp.asarray([0, 1, 2, 3, 4, 5])
    mixed = jax.jit(lambda k: baselines.mixup(k, inputs, labels, 0.8))(
        jax.random.key(1)
    )
    assert sorted(mixed.partner_labels.tolist()) == labels.tolist()
    assert mixed.partner_labels.tolist() != labels.tolist()
    assert 0 < mixed.weight < 1
    partner_inputs = inputs[mixed.partner_labels]
    expected = mixed.weight * inputs + (1 - mixed.weight) * partner_inputs
    assert_allclose(mixed.inputs, expected)
    assert mixed.inputs.dtype == inputs.dtype


@pytest.mark.parametrize("beta", [0.2, 1.0, 6.4])
def test_mixup_weight_has_the_beta_distribution(beta):
    inputs, labels = jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4000)
    weights = jax.vmap(lambda k: baselines.mixup(k, inputs, labels, beta).weight)(keys)
    assert_allclose(np.mean(weights), 0.5, atol=0.03)
    assert_allclose(np.var(weights), 1 / (4 * (2 * beta + 1)), rtol=0.1)


def test_mixup_loss_is_the_loss_on_mixed_labels():
    logits = jax.random.normal(jax.random.key(0), (5, 3))
    labels = jnp.asarray([0, 1, 2, 0, 1])
    mixed = baselines.mixup(jax.random.key(1), jnp.ones((5, 2)), labels, 1.0)

    def losses(logits, labels):
        return -jnp.sum(jax.nn.one_hot(labels, 3) * jax.nn.log_softmax(logits), axis=1)

    soft = mixed.weight * jax.nn.one_hot(labels, 3)
    soft += (1 - mixed.weight) * jax.nn.one_hot(mixed.partner_labels, 3)
    expected = -jnp.sum(soft * jax.nn.log_softmax(logits), axis=1)
    assert_allclose(baselines.mixup_loss(losses, logits, mixed), expected, rtol=1e-12)


def test_mixup_refuses_what_it_cannot_mix():
    key, labels = jax.random.key(0), jnp.zeros(3, jnp.int32)
    with pytest.raises(ValueError, match=r"beta.*0"):
        baselines.mixup(key, jnp.ones((3, 2)), labels, 0.0)
    with pytest.raises(TypeError, match=r"inputs.*int"):
        baselines.mixup(key, jnp.ones((3, 2), jnp.int32), labels, 1.0)
    with pytest.raises(ValueError, match=r"labels.*\(3, 2\).*\(4,\)"):
        baselines.mixup(key, jnp.ones((3, 2)), jnp.zeros(4, jnp.int32), 1.0)


def test_sam_gradient_is_the_gradient_uphill():
    params = {"w": jnp.asarray([2.0, -1.0])}
    value, gradient = baselines.sam_gradient(quadratic, params, 0.1)
    here = np.asarray([2.0, -3.0])
    ahead = np.asarray([2.0, -1.0]) + 0.1 * here / np.linalg.norm(here)
    assert_allclose(value, quadratic(params))
    assert_allclose(gradient["w"], ahead * [1.0, 3.0], rtol=1e-12)


def test_auxiliary_values_come_from_the_unperturbed_point():
    params = {"w": jnp.asarray([2.0, -1.0])}

    def with_aux(p):
        return quadratic(p), p["w"]

    (value, aux), gradient = jax.jit(
        lambda p: baselines.sam_gradient(with_aux, p, 0.1, has_aux=True)
    )(params)
    plain_value, plain = baselines.sam_gradient(quadratic, params, 0.1)
    assert_allclose(value, plain_value)
    assert_allclose(aux, params["w"])
    assert_allclose(gradient["w"], plain["w"])


def test_gradient_norm_gradient_is_first_order_in_the_radius():
    params = {"w": jnp.asarray([2.0, -1.0])}
    strength = 0.3

    def penalised(p):
        return quadratic(p) + strength * jnp.linalg.norm(jax.grad(quadratic)(p)["w"])

    exact = jax.grad(penalised)(params)["w"]
    for radius in (1e-2, 1e-4):
        _, got = baselines.gradient_norm_gradient(
            quadratic, params, radius, strength / radius
        )
        assert_allclose(got["w"], exact, atol=10 * radius)
    _, plain = baselines.gradient_norm_gradient(quadratic, params, 0.1, 0.0)
    assert_allclose(plain["w"], jax.grad(quadratic)(params)["w"])
    _, whole = baselines.gradient_norm_gradient(quadratic, params, 0.1, 1.0)
    sam = baselines.sam_gradient(quadratic, params, 0.1)[1]
    assert_allclose(whole["w"], sam["w"])


def test_zero_gradient_and_zero_radius_leave_the_plain_gradient():
    zero = {"w": jnp.zeros(2)}
    assert_allclose(baselines.sam_gradient(quadratic, zero, 0.1)[1]["w"], 0.0)
    params = {"w": jnp.asarray([2.0, -1.0])}
    _, gradient = baselines.sam_gradient(quadratic, params, 0.0)
    assert_allclose(gradient["w"], jax.grad(quadratic)(params)["w"])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"radius.*-1"):
        baselines.sam_gradient(quadratic, {"w": jnp.ones(2)}, -1.0)
    with pytest.raises(TypeError, match="loss_fn"):
        baselines.sam_gradient(lambda p: p["w"], {"w": jnp.ones(2)}, 0.1)
    with pytest.raises(TypeError, match=r"params\['w'\]"):
        baselines.sam_gradient(quadratic, {"w": np.arange(2)}, 0.1)
