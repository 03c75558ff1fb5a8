"""Norms and kernel gradients at products, against JAX's own derivative rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose

from fisher_jax import curvature, programs, trees
from fisher_jax.curvature import _layers
from tests.curvature.networks import jit


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


CONVOLUTIONS = {
    "same": ((1, 7, 7, 2), (3, 3, 2, 4), {}),
    "strided": ((1, 8, 7, 2), (3, 2, 2, 4), {"window_strides": (2, 3)}),
    "dilated": ((1, 9, 9, 2), (3, 3, 2, 4), {"rhs_dilation": (2, 1)}),
    "transposed": (
        (1, 4, 4, 2),
        (3, 3, 2, 4),
        {"lhs_dilation": (2, 2), "padding": ((1, 1), (2, 0))},
    ),
    "uneven padding": ((1, 5, 5, 2), (3, 3, 2, 4), {"padding": ((0, 2), (3, 1))}),
    "cropping": ((1, 7, 7, 2), (3, 3, 2, 4), {"padding": ((-1, 0), (0, -2))}),
    "grouped": ((1, 5, 5, 4), (3, 3, 2, 6), {"feature_group_count": 2}),
    "depthwise": ((1, 5, 5, 4), (3, 3, 1, 8), {"feature_group_count": 4}),
    "one position": ((1, 3, 3, 4), (3, 3, 4, 8), {"padding": "VALID"}),
    "few positions, grouped": (
        (1, 3, 4, 16),
        (3, 3, 8, 16),
        {"padding": "VALID", "feature_group_count": 2},
    ),
    "one dimension": ((1, 9, 3), (4, 3, 5), {"window_strides": (2,)}),
    "three dimensions": ((1, 4, 4, 4, 2), (2, 2, 2, 2, 3), {}),
}


def convolution(x, kernel, options):
    space = "DHW"[-(x.ndim - 2) :]
    options = {"padding": "SAME", "window_strides": (1,) * (x.ndim - 2)} | options
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


def products():
    for name, (image, kernel, options) in CONVOLUTIONS.items():
        yield pytest.param(
            lambda p, x, o=options: convolution(x, p["w"], o), kernel, image, id=name
        )
    numbers = ("NCHW", "OIHW", "NCHW")
    yield pytest.param(
        lambda p, x: lax.conv_general_dilated(
            x, p["w"], (1, 1), "SAME", dimension_numbers=numbers
        ),
        (4, 2, 3, 3),
        (1, 2, 5, 5),
        id="channels first",
    )
    for subscripts, weight, operand in (
        ("bi,io->bo", (5, 3), (1, 5)),
        ("bi,oi->bo", (3, 5), (1, 5)),
        ("io,bi->ob", (5, 3), (1, 5)),
        ("bti,io->bto", (5, 3), (1, 7, 5)),
        ("bti,io->bto", (15, 13), (1, 2, 15)),
        ("bti,tio->bto", (7, 5, 3), (1, 7, 5)),
        ("bthi,hio->btho", (2, 9, 8), (1, 3, 2, 9)),
        ("btij,ijo->bto", (2, 3, 4), (1, 6, 2, 3)),
        ("oij,btij->bot", (4, 2, 3), (1, 6, 2, 3)),
    ):
        weight_first = subscripts.startswith(("io,", "oij,"))

        def einsum(p, x, s=subscripts, first=weight_first):
            return jnp.einsum(s, *((p["w"], x) if first else (x, p["w"])))

        yield pytest.param(einsum, weight, operand, id=f"{subscripts} {weight}")


@pytest.mark.parametrize(("product", "weight", "operand"), products())
def test_norm_at_a_product_is_the_norm_of_its_gradient(product, weight, operand):
    params, x = {"w": normal(0, *weight)}, normal(1, *operand)
    program = programs.flatten(lambda p, x: product(p, x), params, x)
    (site,) = _layers.find_sites(program, 1)
    tapped = _layers.with_taps(program, [site])
    twice = _layers.with_taps(program, [])

    @jit
    def both(params, x):
        out, pullback = jax.vjp(lambda p: product(p, x), params)
        cotangent = jnp.cos(jnp.arange(out.size * 1.0)).reshape(out.shape)
        taps = [jnp.zeros(())]
        norm = jax.vjp(lambda t, x: tapped(t, [params["w"], x])[0], taps, x)[1]
        kernel = jax.vjp(lambda w: twice([], [w, x])[0], params["w"])[1]
        expected = (
            pullback(cotangent)[0]["w"],
            jax.vjp(lambda x: product(params, x), x)[1](cotangent)[0],
        )
        return norm(cotangent), kernel(cotangent)[0], expected

    ((norm,), x_gradient), kernel_gradient, expected = both(params, x)
    assert_allclose(norm, np.sum(np.square(expected[0])), rtol=1e-11)
    assert_allclose(x_gradient, expected[1], rtol=1e-10, atol=1e-12)
    assert_allclose(kernel_gradient, expected[0], rtol=1e-10, atol=1e-12)


def sites_of(function, params, x):
    program = programs.flatten(function, params, x)
    names = sorted(params)
    return {names[s.leaf] for s in _layers.find_sites(program, len(names))}


def test_which_parameters_have_a_site():
    square = normal(0, 4, 4)
    params = dict.fromkeys(
        ("bias", "plain", "returned", "rearranged", "scaled", "shared", "unused"),
        square,
    )

    def network(p, x):
        @jax.jit
        def nested(w, x):
            return jax.nn.relu(x @ w)

        h = nested(p["plain"], x) @ p["shared"] @ p["shared"] + p["bias"]
        h = h @ p["rearranged"].T.reshape(2, 2, 4).reshape(4, 4)
        return h @ (2 * p["scaled"]), p["returned"]

    assert sites_of(network, params, normal(1, 1, 4)) == {"plain", "rearranged"}


def test_no_site_in_a_loop_or_twice_in_one_product():
    params = {"looped": normal(0, 4, 4), "squared": normal(1, 4, 4)}

    def network(p, x):
        h, _ = lax.scan(lambda h, _: (h @ p["looped"], None), x, None, length=2)
        return h @ (p["squared"] @ p["squared"])

    assert sites_of(network, params, normal(1, 1, 4)) == set()


def test_two_parameters_multiplied_with_each_other():
    params = {"a": normal(0, 3, 2), "b": normal(1, 2, 4)}
    x = normal(2, 5, 3)

    def logits_fn(p, x):
        return x @ (p["a"] @ p["b"])

    labels = jnp.arange(5) % 4
    assert sites_of(logits_fn, params, x) == {"a", "b"}
    norms = jit(lambda p: curvature.squared_gradient_norms(logits_fn, p, x, labels))

    def loss(p, x, label):
        return -jax.nn.log_softmax(logits_fn(p, x[None])[0])[label]

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, labels)
    expected = sum(np.sum(np.square(g), axis=(1, 2)) for g in gradients.values())
    assert_allclose(norms(params), expected, rtol=1e-12)


@pytest.mark.parametrize("is_nested", [False, True])
def test_one_array_as_two_parameters_is_two(is_nested):
    """Equal products of one array are merged, but not if each has a norm."""
    w, x, labels = normal(0, 4, 5), normal(1, 3, 4), jnp.arange(3)

    def sum_of_two(p, x):
        return jnp.tanh(x @ p["a"]) + jnp.tanh(x @ p["b"])

    network = jax.checkpoint(sum_of_two) if is_nested else sum_of_two

    def norms(a, b):
        return curvature.squared_gradient_norms(network, {"a": a, "b": b}, x, labels)

    expected = norms(w, w + 0)
    assert_allclose(jax.jit(lambda w: norms(w, w))(w), expected, rtol=1e-12)
    with jax.disable_jit():
        assert_allclose(norms(w, w), expected, rtol=1e-12)


def test_norms_of_a_bfloat16_layer_are_summed_in_float32():
    x, w = normal(0, 1, 300, 16), normal(1, 16, 8).astype(jnp.float32)

    def logits_fn(p, x):
        low = x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16)
        return low.mean(axis=1)

    args = ({"w": w}, x, jnp.zeros(1, jnp.int32))
    got = jit(lambda *a: curvature.squared_gradient_norms(logits_fn, *a))(*args)
    full = jit(
        lambda *a: curvature.squared_gradient_norms(
            lambda p, x: (x @ p["w"]).mean(axis=1), *a
        )
    )(*args)
    assert got.dtype == jnp.float32
    assert_allclose(got, full, rtol=0.05)


def test_derivative_of_the_trace_passes_through_the_taps():
    params = {"w": normal(0, 3, 3, 2, 3), "out": normal(1, 27, 4)}
    x = normal(2, 2, 3, 3, 2)

    def logits_fn(p, x):
        h = jnp.tanh(convolution(x, p["w"], {}))
        return h.reshape(len(x), -1) @ p["out"]

    def exact(p):
        return curvature.fisher_trace(logits_fn, p, x, estimator="exact").mean

    def by_definition(p):
        def losses(p):
            return -jax.nn.log_softmax(logits_fn(p, x))

        weights = jax.nn.softmax(logits_fn(p, x))
        gradients = jax.jacrev(losses)(p)
        squares = sum(
            jnp.sum(g**2, axis=tuple(range(2, g.ndim))) for g in gradients.values()
        )
        return jnp.mean(jnp.sum(weights * squares, axis=1))

    got, expected = jit(lambda p: (jax.grad(exact)(p), jax.grad(by_definition)(p)))(
        params
    )
    for name in params:
        assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12)


def deep_network(params, x):
    for kernel in params["convolutions"]:
        x = jax.nn.relu(convolution(x, kernel, {}))
    x = x.reshape(len(x), -1)
    for kernel in params["dense"]:
        x = jax.nn.relu(x @ kernel)
    return x


def temporary_bytes(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_gradients_per_example_are_not_held_and_chunks_keep_memory_flat():
    shape = jax.ShapeDtypeStruct
    params = {
        "convolutions": [shape((3, 3, 2, 256), jnp.float32)]
        + [shape((3, 3, 256, 256), jnp.float32)] * 2,
        "dense": [shape((4 * 256, 512), jnp.float32), shape((512, 10), jnp.float32)],
    }
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) * 4

    def norms(params, x, y, chunk_size):
        return curvature.squared_gradient_norms(
            deep_network, params, x, y, chunk_size=chunk_size
        )

    def by_vmap(params, x, y):
        def one(x, y):
            def loss(p):
                return -jax.nn.log_softmax(deep_network(p, x[None])[0])[y]

            return trees.squared_norm(jax.grad(loss)(params))

        return jax.vmap(one)(x, y)

    def batch(number):
        return shape((number, 2, 2, 2), jnp.float32), shape((number,), jnp.int32)

    plain = temporary_bytes(by_vmap, params, *batch(64))
    ours = temporary_bytes(lambda *a: norms(*a, None), params, *batch(64))
    assert plain > 30 * size
    assert ours < 6 * size
    chunked = [
        temporary_bytes(lambda *a: norms(*a, 64), params, *batch(n))
        for n in (128, 4096)
    ]
    # Per-example results and padding aside.
    assert chunked[1] < chunked[0] + 2**20


def nested_network(params, tokens):
    """Rematerialised blocks of one program, and a scan over stacked layers."""
    h = params["table"][tokens]

    @jax.checkpoint
    def block(w, h):
        return jnp.tanh(jax.jit(jnp.matmul)(h, w))

    h = h + block(params["first"], h)
    h = h + block(params["second"], h)

    @jax.checkpoint
    def wide(w, v, h):
        return jnp.tanh(h @ w) @ v

    def layer(h, weights):
        w, v, bias, kernel = weights
        h = h + wide(w, v, h) + bias + jnp.tanh(h @ params["shared"])
        numbers = ("NWC", "WIO", "NWC")
        h = h + lax.conv_general_dilated(
            h, kernel, (1,), "SAME", dimension_numbers=numbers
        )
        return h, h.mean(axis=1)

    stacked = [params[name] for name in ("w", "v", "bias", "kernel")]
    _, means = lax.scan(layer, h, stacked, reverse=True)
    return means.sum(axis=0) @ params["out"]


def test_norms_in_rematerialised_blocks_and_scanned_layers():
    shapes = {
        "table": (7, 4),
        "first": (4, 4),
        "second": (4, 4),
        "w": (3, 4, 6),
        "v": (3, 6, 4),
        "bias": (3, 4),
        "kernel": (3, 3, 4, 4),
        "shared": (4, 4),
        "out": (4, 3),
    }
    params = {name: 0.5 * normal(k, *s) for k, (name, s) in enumerate(shapes.items())}
    tokens, labels = jnp.array([[0, 1, 1], [2, 2, 2], [6, 3, 0]]), jnp.arange(3)
    has_none = {"bias", "shared"}
    assert sites_of(nested_network, params, tokens[:1]) == shapes.keys() - has_none

    def loss(p, x, y):
        return -jax.nn.log_softmax(nested_network(p, x[None])[0])[y]

    gradients = jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(params, tokens, labels)
    expected = sum(np.square(g).reshape(3, -1).sum(1) for g in gradients.values())
    norms = jit(
        lambda p: curvature.squared_gradient_norms(nested_network, p, tokens, labels)
    )
    assert_allclose(norms(params), expected, rtol=1e-11)


def test_weights_of_nested_programs_are_not_held_for_every_example():
    shape = jax.ShapeDtypeStruct
    width, number = 512, 32
    params = {"blocks": [shape((width, width), jnp.float32)] * 2}
    params["layers"] = shape((4, width, width), jnp.float32)
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) * 4

    def network(p, x):
        block = jax.checkpoint(lambda w, h: jnp.tanh(h @ w))
        for w in p["blocks"]:
            x = block(w, x)
        x, _ = lax.scan(lambda h, w: (block(w, h), None), x, p["layers"])
        return x[:, :10]

    def norms(p, x, y):
        return curvature.squared_gradient_norms(network, p, x, y, chunk_size=number)

    batch = shape((number, width), jnp.float32), shape((number,), jnp.int32)
    assert temporary_bytes(norms, params, *batch) < 3 * size
