import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax import measure
from fisher_jax.data.device import DeviceSplit, scored_batches
from fisher_jax.programs import equations

NUM, CLASSES = 23, 3


def logits_of(scale, params, inputs):
    return scale * inputs.reshape(inputs.shape[0], -1) @ params["w"]


@pytest.fixture
def logits_fn():
    return jax.tree_util.Partial(logits_of, jnp.float32(2.0))


@pytest.fixture
def params():
    return {"w": jnp.asarray(np.random.default_rng(1).normal(size=(8, CLASSES)))}


@pytest.fixture
def split():
    generator = np.random.default_rng(0)
    return DeviceSplit(
        pixels=jnp.asarray(generator.integers(0, 256, (NUM, 8)), jnp.uint8),
        labels=jnp.asarray(generator.integers(0, CLASSES, NUM), jnp.int32),
        is_noisy=jnp.asarray(generator.random(NUM) < 0.4),
        mean=jnp.array([0.4, 0.5], jnp.float32),
        std=jnp.array([0.2, 0.3], jnp.float32),
        image_shape=(2, 2, 2),
    )


def numpy_losses(split, params):
    """Per-example loss and correctness, from the definitions, in float64."""
    images = np.asarray(split.pixels, np.float64).reshape(NUM, 2, 2, 2) / 255
    inputs = (images - np.asarray(split.mean)) / np.asarray(split.std)
    logits = 2.0 * inputs.reshape(NUM, -1) @ np.asarray(params["w"], np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    labels = np.asarray(split.labels)
    return -log_p[np.arange(NUM), labels], logits.argmax(1) == labels, inputs, log_p


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 24, 1000])
def test_every_example_counts_once(logits_fn, params, split, batch_size):
    losses, is_correct, _, _ = numpy_losses(split, params)
    is_noisy = np.asarray(split.is_noisy)
    scores = measure.score(
        logits_fn, params, scored_batches(split, batch_size=batch_size)
    )
    expected = [
        losses.mean(),
        is_correct.mean(),
        is_correct[~is_noisy].mean(),
        is_correct[is_noisy].mean(),
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_subset_is_scored_alone(logits_fn, params, split):
    losses, is_correct, _, _ = numpy_losses(split, params)
    ids = np.array([3, 7, 20], np.int32)
    scores = measure.score(logits_fn, params, scored_batches(split, ids, batch_size=2))
    np.testing.assert_allclose(scores.loss, losses[ids].mean(), rtol=1e-5)
    np.testing.assert_allclose(scores.accuracy, is_correct[ids].mean())


def test_without_noisy_examples_their_accuracy_is_undefined(logits_fn, params, split):
    clean = dataclasses.replace(split, is_noisy=jnp.zeros(NUM, bool))
    scores = measure.score(logits_fn, params, scored_batches(clean, batch_size=10))
    assert np.isnan(scores.noisy_accuracy)
    assert scores.clean_accuracy == scores.accuracy


def test_gradients_of_clean_and_noisy_examples(logits_fn, params, split):
    _, _, inputs, log_p = numpy_losses(split, params)
    error = np.exp(log_p) - np.eye(CLASSES)[np.asarray(split.labels)]
    per_example = 2.0 * inputs.reshape(NUM, -1, 1) * error[:, None, :]
    is_noisy = np.asarray(split.is_noisy)
    clean, noisy = per_example[~is_noisy].mean(0), per_example[is_noisy].mean(0)
    values = measure.measure_gradients(
        logits_fn, params, split, np.flatnonzero(~is_noisy), np.flatnonzero(is_noisy)
    )
    norms = np.linalg.norm(clean), np.linalg.norm(noisy)
    np.testing.assert_allclose(values["gradient/clean_norm"], norms[0], rtol=1e-5)
    np.testing.assert_allclose(values["gradient/noisy_norm"], norms[1], rtol=1e-5)
    cosine = np.sum(clean * noisy) / np.prod(norms)
    np.testing.assert_allclose(values["gradient/cosine"], cosine, rtol=1e-4)


def test_fisher_and_hessian_agree_where_they_must(logits_fn, params, split):
    """Logits are linear in the parameters, so that H = F exactly (identity 3)."""
    _, _, inputs, log_p = numpy_losses(split, params)
    p = np.exp(log_p)
    squares = 4.0 * np.sum(inputs.reshape(NUM, -1) ** 2, 1)
    exact = np.mean(squares * np.sum(p * (1 - p), 1))
    ids = np.arange(NUM, dtype=np.int32)
    settings = measure.MeasureSettings(
        fisher_estimator="exact", hessian_probes=400, minibatch_size=NUM, chunk_size=5
    )
    key = jax.random.key(0)
    fisher = measure.measure_fisher(logits_fn, params, split, ids, key, settings)
    np.testing.assert_allclose(fisher["trace/fisher"], exact, rtol=1e-5)
    assert fisher["trace/fisher_sem"] == 0
    hessian = measure.measure_hessian(logits_fn, params, split, ids, key, settings)
    error = abs(hessian["trace/hessian"] - exact)
    assert error < 4 * hessian["trace/hessian_sem"] < exact


def test_the_minibatch_trace_has_no_factor_b(logits_fn, params, split):
    """E[Tr(F_B)] = Tr(F)/B; 300 keys, 4 standard errors of their mean."""
    ids = np.arange(NUM, dtype=np.int32)
    settings = measure.MeasureSettings(
        fisher_estimator="exact", minibatch_size=NUM, chunk_size=NUM
    )
    values = [
        measure.measure_fisher(
            logits_fn, params, split, ids, jax.random.key(i), settings
        )
        for i in range(300)
    ]
    minibatch = np.array([v["trace/fisher_minibatch"] for v in values])
    expected = values[0]["trace/fisher"] / NUM
    sem = minibatch.std(ddof=1) / np.sqrt(minibatch.size)
    assert abs(minibatch.mean() - expected) < 4 * sem


def test_online_trace_is_b_times_the_mean_penalty():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    online = measure.online_fisher(values.sum(), (values**2).sum(), 4, 128)
    sem = 128 * values.std(ddof=1) / 2
    assert online == {
        "trace/fisher_online": 128 * 3.0,
        "trace/fisher_online_sem": pytest.approx(sem),
    }
    assert measure.online_fisher(2.0, 4.0, 1, 128) == {"trace/fisher_online": 256.0}
    assert measure.online_fisher(0.0, 0.0, 0, 128) == {}


def test_the_probe_is_the_start_of_the_order():
    order = np.array([4, 2, 0, 3, 1])
    is_noisy = np.array([False, False, True, False, True])
    probe = measure.choose_probe(
        order, is_noisy, fisher_examples=3, hessian_examples=2, gradient_examples=1
    )
    np.testing.assert_array_equal(probe.fisher_ids, [4, 2, 0])
    np.testing.assert_array_equal(probe.hessian_ids, [4, 2])
    np.testing.assert_array_equal(probe.noisy_ids, [4])
    np.testing.assert_array_equal(probe.clean_ids, [0])


@pytest.mark.parametrize(("num_noisy", "number"), [(0, 0), (1, 1), (3, 2), (5, 0)])
def test_gradients_are_compared_of_as_many_clean_as_noisy_examples(num_noisy, number):
    probe = measure.choose_probe(
        np.arange(5), np.arange(5) < num_noisy, fisher_examples=3, hessian_examples=2,
        gradient_examples=2,
    )  # fmt: skip
    assert probe.clean_ids.size == probe.noisy_ids.size == number


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_traces_have_the_precision_that_they_are_told(
    logits_fn, params, split, precision
):
    settings = measure.MeasureSettings(
        hessian_probes=2, minibatch_size=4, precision=precision
    )
    ids, key = jnp.arange(4), jax.random.key(0)
    programs = [
        jax.make_jaxpr(partial(measure.estimate_fisher, settings=settings))(
            logits_fn, params, split, ids, key
        ),
        jax.make_jaxpr(
            partial(measure.estimate_fisher, settings=settings, of_minibatch=True)
        )(logits_fn, params, split, ids, key),
        jax.make_jaxpr(
            partial(measure.estimate_hessian, num_probes=2, precision=precision)
        )(logits_fn, params, split, ids, 4, key),
    ]
    for program in programs:
        products = [
            equation.params["precision"]
            for equation in equations(program.jaxpr)
            if equation.primitive.name == "dot_general"
        ]
        assert products
        expected = {
            "default": {None, (jax.lax.Precision.DEFAULT,) * 2},
            "high": {(jax.lax.Precision.HIGH,) * 2},
            "highest": {(jax.lax.Precision.HIGHEST,) * 2},
        }
        assert set(products) <= expected[precision]
