"""Wrong arguments of the public functions: one clear message each, eager and jitted.

A message names the argument, its dtype and shape, and what was expected.
"""
# ruff: noqa: E501 (a case is a line)

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax import curvature, penalties
from fisher_jax.curvature import Categorical

BATCH, CLASSES = 6, 3


def outputs_fn(params, inputs):
    return jnp.tanh(inputs) @ params["w"]


def loss_fn(params):
    return jnp.sum(params["w"] ** 2)


GOOD = {
    "outputs_fn": outputs_fn,
    "loss_fn": loss_fn,
    "params": {"w": np.ones((4, CLASSES), np.float32)},
    "inputs": np.ones((BATCH, 4), np.float32),
    "labels": np.zeros(BATCH, np.int32),
    "key": jax.random.key(0),
    "vector": {"w": np.ones((4, CLASSES), np.float32)},
    "logits": np.ones((BATCH, CLASSES), np.float32),
}

NETWORK = ("outputs_fn", "params", "inputs")
LOSS = ("loss_fn", "params")
RANDOM = {
    curvature.fisher_trace: (*NETWORK, "key"),
    curvature.minibatch_fisher_trace: (*NETWORK, "key"),
    curvature.layer_fisher_traces: (*NETWORK, "key"),
    curvature.largest_fisher_eigenvalue: (*NETWORK, "key"),
    curvature.fisher_diagonal: (*NETWORK, "key"),
    penalties.fisher_penalty: (*NETWORK, "key"),
    penalties.single_example_fisher_penalty: (*NETWORK, "key"),
    penalties.random_label_penalty: (*NETWORK, "key"),
}
LABELLED = {
    curvature.squared_gradient_norms: (*NETWORK, "labels"),
    penalties.gradient_penalty: (*NETWORK, "labels"),
    penalties.input_gradient_penalty: (*NETWORK, "labels"),
    curvature.fisher_and_hessian_trace: (*NETWORK, "labels", "key"),
}
OF_LOSS = {
    curvature.hvp: (*LOSS, "vector"),
    curvature.hessian_trace: (*LOSS, "key"),
    curvature.hessian_diagonal: (*LOSS, "key"),
    curvature.layer_hessian_traces: (*LOSS, "key"),
    curvature.hessian_xtrace: (*LOSS, "key"),
    curvature.largest_eigenvalue: (*LOSS, "key"),
}
OF_NETWORK = {
    **RANDOM,
    **LABELLED,
    curvature.fisher_vector_product: (*NETWORK, "vector"),
}
EVERY = {**OF_NETWORK, **OF_LOSS, curvature.sample_labels: ("key", "logits")}
KEYED = {f for f, arguments in EVERY.items() if "key" in arguments}
WITH_DRAW = (
    curvature.fisher_trace,
    curvature.minibatch_fisher_trace,
    curvature.layer_fisher_traces,
    curvature.fisher_diagonal,
    curvature.fisher_and_hessian_trace,
    penalties.fisher_penalty,
    penalties.single_example_fisher_penalty,
)
COUNTS = (
    (curvature.fisher_trace, "num_draws"),
    (curvature.layer_fisher_traces, "num_draws"),
    (curvature.fisher_and_hessian_trace, "num_draws"),
    (curvature.fisher_and_hessian_trace, "num_probes"),
    (curvature.hessian_trace, "num_probes"),
    (curvature.hessian_xtrace, "num_products"),
    (curvature.fisher_diagonal, "num_draws"),
    (curvature.hessian_diagonal, "num_probes"),
    (curvature.layer_hessian_traces, "num_probes"),
    (penalties.fisher_penalty, "num_groups"),
    (curvature.largest_eigenvalue, "num_iterations"),
    (curvature.largest_fisher_eigenvalue, "num_iterations"),
    (curvature.squared_gradient_norms, "chunk_size"),
    (curvature.fisher_vector_product, "chunk_size"),
    (penalties.fisher_penalty, "chunk_size"),
    (penalties.gradient_penalty, "chunk_size"),
    (penalties.random_label_penalty, "chunk_size"),
    (penalties.input_gradient_penalty, "chunk_size"),
)


def float_shape(shape):
    return rf"got dtype float32 and shape \({shape}\)"


# Argument, wrong value, error, message; for every function that takes the argument.
WRONG = (
    ("outputs_fn", "network", TypeError, "outputs_fn: expected a function, got str"),
    ("outputs_fn", lambda p, x: x[:, 0], ValueError, rf"logits.*\[6, C\].*{float_shape('6,')}"),
    ("outputs_fn", lambda p, x: x[None], ValueError, rf"\[6, C\].*{float_shape('1, 6, 4')}"),
    ("outputs_fn", lambda p, x: x[:5], ValueError, rf"\[6, C\].*{float_shape('5, 4')}"),
    ("outputs_fn", lambda p, x: x > 0, TypeError, r"logits.*bool and shape \(6, 4\)"),
    ("outputs_fn", lambda p, x: (x, 0), TypeError, "floating-point logits.*a tuple of 2"),
    ("loss_fn", 1.0, TypeError, "loss_fn: expected a function, got float 1.0"),
    ("loss_fn", lambda p: p["w"], TypeError, rf"loss_fn.*scalar.*{float_shape('4, 3')}"),
    ("loss_fn", lambda p: jnp.int32(0), TypeError, r"loss_fn.*int32 and shape \(\)"),
    ("params", {}, ValueError, "params: expected a pytree.*no array"),
    ("params", {"w": np.ones((4, 3), int)}, TypeError, r"params\['w'\].*int\d\d and shape \(4, 3\)"),
    ("params", {"w": 1.0}, TypeError, r"params\['w'\]: expected a real.*float 1.0"),
    ("params", {"w": np.ones((0, 3))}, ValueError, r"params\['w'\].*shape \(0, 3\)"),
    ("inputs", np.ones((0, 4)), ValueError, r"inputs: expected.*\[B, \.\.\.\].*\(0, 4\)"),
    ("inputs", (np.ones((6, 4)), np.ones((5, 4))), ValueError, r"inputs.*one B.*\(5, 4\)"),
    ("inputs", 3.0, ValueError, r"inputs: expected.*\[B, \.\.\.\].*\(\)"),
    ("labels", np.zeros(6, np.float32), TypeError, rf"labels: expected integers \[B\] = \[6\], {float_shape('6,')}"),
    ("labels", np.zeros((6, 3), np.int32), ValueError, r"labels.*\[6\], got dtype int32 and shape \(6, 3\)"),
    ("labels", np.zeros(5, np.int32), ValueError, r"labels.*\[6\], got dtype int32 and shape \(5,\)"),
    ("key", None, ValueError, "key: expected one PRNG key.*got None"),
    ("key", 0, TypeError, "key: expected one PRNG key.*got int 0"),
    ("key", np.zeros(4, np.uint32), ValueError, r"key: .*\(4,\), which is of another impl"),
    ("key", np.ones(2, np.float32), TypeError, f"key: expected one PRNG key.*{float_shape('2,')}"),
    ("key", jax.random.split(jax.random.key(0)), ValueError, r"key.*shape \(2,\).*jax.vmap"),
    ("vector", {"v": np.ones(3)}, ValueError, "vector: expected the pytree structure"),
    ("vector", {"w": np.ones((3, 4))}, ValueError, r"vector\['w'\].*\(4, 3\).*\(3, 4\)"),
    ("logits", np.ones((6, 3), int), TypeError, r"logits.*int\d\d and shape \(6, 3\)"),
    ("logits", np.float32(1), ValueError, r"logits: expected \[\.\.\., C\].*shape \(\)"),
)  # fmt: skip

CASES = [
    pytest.param(
        function, {argument: value}, error, message, id=f"{function.__name__}-{i}"
    )
    for i, (argument, value, error, message) in enumerate(WRONG)
    for function, arguments in EVERY.items()
    if argument in arguments
    # It calls outputs_fn with one example.
    and not (function is penalties.single_example_fisher_penalty and callable(value))
]
CASES += [
    pytest.param(
        f,
        {"draw": "uniform"},
        ValueError,
        "draw: expected one of 'labels'.*'uniform'",
        id=f"{f.__name__}-draw",
    )
    for f in WITH_DRAW
]
CASES += [
    pytest.param(f, {name: value}, error, message.format(name), id=f"{f.__name__}-{name}-{value}")
    for f, name in COUNTS
    for value, error, message in (
        (0, ValueError, "{}: expected at least 1, got 0"),
        (2.0, TypeError, "{}: expected a Python integer, got float 2.0"),
    )
]  # fmt: skip


def call(function, changes):
    arguments = [changes.get(name, GOOD[name]) for name in EVERY[function]]
    options = {k: v for k, v in changes.items() if k not in GOOD}
    return function(*arguments, **options)


@pytest.mark.parametrize(("function", "changes", "error", "message"), CASES)
def test_a_wrong_argument_is_named(function, changes, error, message):
    with pytest.raises(error, match=message):
        call(function, changes)
    # Under jit the checks are those of tracing, with the same messages.
    if set(changes) & {"inputs", "labels"}:
        (name,) = changes
        with pytest.raises(error, match=message):
            jax.eval_shape(lambda v: call(function, {name: v}), changes[name])


@pytest.mark.parametrize("function", LABELLED)
@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_labels_out_of_range_are_named_where_they_are_known(function, wrong):
    labels = np.array([0, 1, 2, 0, 1, wrong], np.int32)
    message = rf"labels.*from 0 to 2.*3 logits.*{min(wrong, 0)} to {max(wrong, 2)}"
    for array in (labels, jnp.asarray(labels), labels.tolist()):
        with pytest.raises(ValueError, match=message):
            call(function, {"labels": array})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda w: call(function, {"labels": labels, "params": w}), GOOD["params"]
        )
    # Traced labels have no values yet: they are not checked.
    jax.eval_shape(lambda y: call(function, {"labels": y}), labels)


@pytest.mark.parametrize("function", LABELLED)
def test_a_list_of_labels_will_do(function):
    labels = [0, 1, 2, 0, 1, 2]
    got, expected = (call(function, {"labels": a}) for a in (labels, np.array(labels)))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize("function", EVERY, ids=lambda f: f.__name__)
def test_the_right_arguments_pass(function):
    jax.eval_shape(lambda: call(function, {}))
    if function in KEYED:
        jax.eval_shape(lambda: call(function, {"key": jax.random.PRNGKey(0)}))


def test_checks_leave_nothing_in_the_compiled_program():
    """The program of a penalty's gradient is the same without any check."""

    def program():
        return str(
            jax.make_jaxpr(
                lambda p, x, y: penalties.gradient_penalty(outputs_fn, p, x, y)
            )(GOOD["params"], GOOD["inputs"], GOOD["labels"])
        )

    with pytest.MonkeyPatch.context() as patch:
        checked = program()
        patch.setattr(Categorical, "check_targets", lambda *_: None)
        patch.setattr("fisher_jax.trees.check_params", lambda _: None)
        patch.setattr("fisher_jax.axes.check", lambda *_: None)
        unchecked = program()
    assert checked == unchecked


def test_checks_are_quick():
    """Of concrete labels: the only check that looks at values."""
    labels = jnp.zeros(5000, jnp.int32)
    logits = jax.ShapeDtypeStruct((5000, 10), jnp.float32)
    Categorical().check_targets(labels, logits)
    start = time.process_time()
    for _ in range(100):
        Categorical().check_targets(labels, logits)
    assert (time.process_time() - start) / 100 < 2e-3
