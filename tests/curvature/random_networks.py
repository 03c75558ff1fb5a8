"""Random small networks, likelihoods, meshes and chunks against brute force.

Run by test_random_networks.py in its own process, as devices are simulated. The oracle
is written apart from the product: one example at a time, the law of targets summed by
hand, derivatives by reverse mode. Prints a line for each case that is wrong.

python -m tests.curvature.random_networks NUM_CASES [SEED [SECONDS]]
"""

import functools
import itertools
import sys
import time
import traceback
from typing import NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fisher_jax import curvature, penalties
from fisher_jax.curvature import Bernoulli, Categorical, Estimate, Gaussian
from tests.curvature.networks import jit

BATCH, POSITIONS, VOCABULARY = 4, 3, 5
KEY = jax.random.key(11)


# A layer: the width of h [B, T, width] -> shapes of params, and (params, h) -> h.
def dense(width):
    def apply(p, h):
        return jnp.tanh(h @ p["kernel"] + p["bias"])

    return {"kernel": (width, 2), "bias": (2,)}, apply


def products(width):
    def apply(p, h):
        h = jnp.einsum("bti,oi->obt", h, p["rows"])
        return jax.nn.softplus(jnp.einsum("obt,ou->btu", h, p["columns"]))

    return {"rows": (3, width), "columns": (3, 2)}, apply


def mixed_positions(width):
    def apply(p, h):
        return h + jax.nn.relu(jnp.einsum("st,btd->bsd", p["mixer"], h))

    return {"mixer": (POSITIONS, POSITIONS)}, apply


def convolution(width, **options):
    def apply(p, h):
        return jax.lax.conv_general_dilated(
            h,
            p["kernel"],
            **({"window_strides": (1,), "padding": "SAME"} | options),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )

    groups = options.get("feature_group_count", 1)
    return {"kernel": (2, width // groups, 2 * groups)}, apply


def dilated(width):
    return convolution(width, rhs_dilation=(2,), padding=((1, 1),))


def grouped(width):
    return convolution(width, feature_group_count=width)


def strided(width):
    # One position for two: padded so that there are as many as before.
    return convolution(width, window_strides=(2,), padding=((2, 2),))


def image(width):
    """Positions and width as an image of one channel."""

    def apply(p, h):
        maps = jax.lax.conv_general_dilated(
            h[..., None],
            p["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.tanh(maps + p["bias"]).mean(axis=-1)

    return {"kernel": (2, 2, 1, 3), "bias": (3,)}, apply


def gathered(width):
    def apply(p, h):
        return h[:, jnp.array([2, 0, 0])] * p["scale"][jnp.array([0, 1, 0])][:, None]

    return {"scale": (3,)}, apply


def looked_up(width):
    """A row of a table for each position, by the sign of what comes in."""

    def apply(p, h):
        index = (h.sum(axis=-1) > 0).astype(jnp.int32) + 1
        return h + jnp.take(p["table"], index, axis=0)

    return {"table": (3, width)}, apply


def recurrent(width):
    def apply(p, h):
        def step(carry, here):
            carry = jnp.tanh(here @ p["input"] + carry @ p["state"] + p["bias"])
            return carry, carry

        # Zeros of each device's own inside shard_map, as JAX's scan wants them.
        start = jnp.zeros_like(h, shape=(h.shape[0], 2)) + 0 * h[:, 0, :1]
        _, outputs = jax.lax.scan(step, start, jnp.moveaxis(h, 1, 0))
        return jnp.moveaxis(outputs, 0, 1)

    return {"input": (width, 2), "state": (2, 2), "bias": (2,)}, apply


def stacked(width):
    """A scan over layers whose parameters lie in one array."""

    def apply(p, h):
        def layer(h, kernel):
            return h + jnp.tanh(h @ kernel), None

        return jax.lax.scan(layer, h, p["kernels"])[0]

    return {"kernels": (2, width, width)}, apply


def rematerialised(width):
    shapes, inner = dense(width)
    return shapes, jax.checkpoint(inner)


def compiled(width):
    shapes, inner = products(width)
    return shapes, jax.jit(inner)


def mapped(width):
    shapes, inner = dense(width)
    return shapes, lambda p, h: jax.vmap(inner, in_axes=(None, 1), out_axes=1)(p, h)


def one_by_one(width):
    """Each example for itself."""
    shapes, inner = convolution(width)

    def apply(p, h):
        return jnp.tanh(jax.vmap(lambda row: inner(p, row[None])[0])(h))

    return shapes, apply


def shared(width):
    def apply(p, h):
        h = h + jnp.tanh(h @ p["kernel"])
        return h @ p["kernel"].T

    return {"kernel": (width, width)}, apply


def normalised_weights(width):
    def apply(p, h):
        length = jnp.sqrt(1e-2 + jnp.sum(p["direction"] ** 2, axis=0))
        return jax.nn.relu(h @ (p["gain"] * p["direction"] / length))

    return {"direction": (width, 2), "gain": (2,)}, apply


def sliced(width):
    def apply(p, h):
        first = h @ p["all"][:, :2] - p["bias"][None, None, :2]
        return first * jax.nn.sigmoid(h @ p["all"][:, 2:] + p["bias"][2:])

    return {"all": (width, 4), "bias": (4,)}, apply


def joined(width):
    def apply(p, h):
        kernel = jnp.concatenate([p["left"], p["right"]], axis=1).reshape(width, 3)
        return jax.nn.leaky_relu(h @ kernel)

    return {"left": (width, 1), "right": (width, 2)}, apply


def attention(width):
    def apply(p, h):
        scores = jax.nn.softmax((h @ p["query"]) @ jnp.swapaxes(h @ p["key"], 1, 2))
        return h + scores @ (h @ p["value"])

    return dict.fromkeys(("query", "key", "value"), (width, width)), apply


def layer_norm(width):
    def apply(p, h):
        h = h - h.mean(axis=-1, keepdims=True)
        h = h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 0.1)
        return p["scale"] * h + p["bias"]

    return {"scale": (width,), "bias": (width,)}, apply


def chosen(width):
    """One of two branches, the same for all examples."""

    def apply(p, h):
        return jax.lax.cond(
            p["gate"][0] > 0,
            lambda h: jnp.tanh(h @ p["kernel"]),
            lambda h: h @ p["kernel"] + 1,
            h,
        )

    return {"gate": (1,), "kernel": (width, 2)}, apply


def unused(width):
    return {"unused": (2,)}, lambda p, h: h


def in_float32(width):
    shapes, inner = dense(width)

    def apply(p, h):
        p = jax.tree.map(lambda a: a.astype(jnp.float32), p)
        return inner(p, h.astype(jnp.float32)).astype(jnp.float64)

    return shapes, apply


def in_bfloat16(width):
    shapes, inner = dense(width)

    def apply(p, h):
        p = jax.tree.map(lambda a: a.astype(jnp.bfloat16), p)
        return inner(p, h.astype(jnp.bfloat16)).astype(h.dtype)

    return shapes, apply


def float32_parameters(width):
    """Parameters of another type than the rest's: ``build`` casts them."""
    return dense(width)


LAYERS = (
    dense,
    products,
    mixed_positions,
    convolution,
    dilated,
    grouped,
    strided,
    image,
    gathered,
    looked_up,
    recurrent,
    stacked,
    rematerialised,
    compiled,
    mapped,
    one_by_one,
    shared,
    normalised_weights,
    sliced,
    joined,
    attention,
    layer_norm,
    chosen,
    unused,
    in_float32,
    in_bfloat16,
    float32_parameters,
)
SINGLE_PRECISION = {in_float32, float32_parameters}
# What is exact to rounding but for these; second derivatives and spectra are not.
IN_BFLOAT16 = ("batches", "drawn", "exact")
LIKELIHOODS = (Categorical(), Bernoulli(), Gaussian(scale=0.7))


class Case(NamedTuple):
    """What is drawn; ``where`` is how the batch lies on the devices."""

    seed: int
    tokens: bool
    layers: tuple
    head: str  # "positions": outputs [B, T, C]; "flat": [B, C]; "tied": the table's
    classes: int
    likelihood: object
    masked: bool
    chunk_size: int | None
    devices: int
    axes: int  # of the mesh; the batch is split over all of them, or the first of two
    replicated: bool
    where: str
    what: str

    def __str__(self):
        names = [getattr(v, "__name__", v) for v in self.layers]
        return f"{self._replace(layers=tuple(names))!r}"


class Problem(NamedTuple):
    """A case's network at parameters, with a batch."""

    network: object
    params: object
    inputs: object
    targets: object
    mask: object
    likelihood: object
    tolerance: float

    @property
    def args(self):
        return self.network, self.params, self.inputs

    @property
    def options(self):
        return {"likelihood": self.likelihood, "mask": self.mask}


@st.composite
def cases(draw):
    tokens = draw(st.booleans())
    head = draw(st.sampled_from(["positions", "flat", *(["tied"] if tokens else [])]))
    likelihood = draw(st.sampled_from(LIKELIHOODS))
    # A softmax needs two classes.
    least = 2 if likelihood == Categorical() else 1
    layers = tuple(draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3)))
    where = draw(st.sampled_from(["one", "auto", "explicit", "shard_map"]))
    # table[index] with an index that is cut over Explicit axes: JAX itself refuses.
    if where == "explicit" and (tokens or looked_up in layers):
        where = "auto"
    rounds = in_bfloat16 in layers
    what = draw(st.sampled_from(IN_BFLOAT16 if rounds else sorted(CHECKS)))
    return Case(
        seed=draw(st.integers(0, 10**6)),
        tokens=tokens,
        layers=layers,
        head=head,
        classes=VOCABULARY if head == "tied" else draw(st.integers(least, 3)),
        likelihood=likelihood,
        masked=draw(st.booleans()),
        chunk_size=draw(st.sampled_from([None, 1, 2, 3, 9])),
        devices=1 if where == "one" else draw(st.sampled_from([1, 2, 4])),
        axes=draw(st.sampled_from([1, 2])),
        replicated=draw(st.booleans()),
        where=where,
        what=what,
    )


def build(case):
    """The problem of a case."""
    random = np.random.default_rng(case.seed)
    width = 2
    shapes, applies = {}, []
    if case.tokens:
        shapes["table"] = {"rows": (VOCABULARY, width), "places": (POSITIONS, width)}
    singles = set()
    for number, layer in enumerate(case.layers):
        name = f"{number}_{layer.__name__}"
        own, apply = layer(width)
        shapes[name] = own
        applies.append((name, apply))
        if layer is float32_parameters:
            singles.add(name)
        example = jax.eval_shape(
            apply,
            {k: jax.ShapeDtypeStruct(s, jnp.float64) for k, s in own.items()},
            jax.ShapeDtypeStruct((1, POSITIONS, width), jnp.float64),
        )
        width = example.shape[-1]
    if case.head == "tied":
        shapes["head"] = {"kernel": (width, 2)}
    else:
        rows = width * (POSITIONS if case.head == "flat" else 1)
        shapes["head"] = {"kernel": (rows, case.classes), "bias": (case.classes,)}

    def network(params, x):
        h = x
        if case.tokens:
            h = params["table"]["rows"][x] + params["table"]["places"]
        for name, apply in applies:
            h = apply(params[name], h)
        if case.head == "flat":
            h = h.reshape(h.shape[0], -1)
        h = h @ params["head"]["kernel"]
        if case.head == "tied":
            return h @ params["table"]["rows"].T
        return h + params["head"]["bias"]

    params = {
        name: {
            leaf: jnp.asarray(
                0.7 * random.normal(size=shape),
                jnp.float32 if name in singles else jnp.float64,
            )
            for leaf, shape in own.items()
        }
        for name, own in shapes.items()
    }
    if case.tokens:
        inputs = jnp.asarray(random.integers(VOCABULARY, size=(BATCH, POSITIONS)))
    else:
        inputs = jnp.asarray(random.normal(size=(BATCH, POSITIONS, 2)))
    positions = (BATCH,) if case.head == "flat" else (BATCH, POSITIONS)
    shape = (*positions, case.classes)
    if case.likelihood == Categorical():
        shape, targets = positions, random.integers(case.classes, size=positions)
    elif case.likelihood == Bernoulli():
        targets = random.integers(2, size=shape)
    else:
        targets = random.normal(size=shape)
    mask = jnp.asarray(random.random(shape) < 0.7) if case.masked else None
    tolerance = 2e-4 if SINGLE_PRECISION & set(case.layers) else 1e-7
    if in_bfloat16 in case.layers:
        tolerance = 0.05
    return Problem(
        network,
        params,
        inputs,
        jnp.asarray(targets),
        mask,
        case.likelihood,
        tolerance,
    )


# The oracle.


def rows(problem, array):
    """An array over positions or outputs as [B, positions, width]."""
    return np.asarray(array).reshape(BATCH, -1, array.shape[-1])


def laws(likelihood, row):
    """(probability, ∂loss/∂outputs) of targets whose covariance is the law's."""
    size = len(row)
    if likelihood == Categorical():
        p = np.exp(row - row.max())
        p /= p.sum()
        return [(p[c], p - np.eye(size)[c]) for c in range(size)]
    found = []
    if likelihood == Bernoulli():
        # Independent: one output at a time.
        p = 1 / (1 + np.exp(-row))
        for c, unit in enumerate(np.eye(size)):
            found += [(p[c], (p[c] - 1) * unit), (1 - p[c], p[c] * unit)]
        return found
    return [(1.0, unit / likelihood.scale) for unit in np.eye(size)]


def losses(problem, outputs, targets, mask):
    """The loss of each example, written out."""
    law = problem.likelihood
    if law == Categorical():
        shifted = outputs - jax.nn.logsumexp(outputs, axis=-1, keepdims=True)
        each = -jnp.sum(
            shifted * (targets[..., None] == jnp.arange(outputs.shape[-1])), axis=-1
        )
    elif law == Bernoulli():
        each = jnp.log(1 + jnp.exp(outputs)) - targets * outputs
    else:
        each = (outputs - targets) ** 2 / (2 * law.scale**2)
    if mask is not None:
        each = jnp.where(mask, each, 0.0)
    return jnp.sum(each.reshape(len(each), -1), axis=1)


class Oracle(NamedTuple):
    jacobian: np.ndarray  # [B, positions, C, P]
    keep: np.ndarray  # [B, positions, C]
    outputs: np.ndarray  # [B, positions, C]
    fisher: np.ndarray  # [P, P]
    norms: np.ndarray  # [B]


def in_double(problem):
    """Params as float64, and network in them as it computes."""
    flat, unravel = ravel_pytree(
        jax.tree.map(lambda a: a.astype(jnp.float64), problem.params)
    )

    def cast(vector):
        return jax.tree.map(
            lambda a, b: a.astype(b.dtype), unravel(vector), problem.params
        )

    return flat, cast


def solve(problem):
    """All matrices, one example at a time."""
    flat, cast = in_double(problem)

    @jit
    def one(x, target, mask):
        def outputs(v):
            return problem.network(cast(v), x[None])

        def loss(v):
            masked = None if problem.mask is None else mask[None]
            return losses(problem, outputs(v), target[None], masked)[0]

        return outputs(flat), jax.jacrev(outputs)(flat), jax.grad(loss)(flat)

    mask = problem.targets if problem.mask is None else problem.mask
    found = [one(problem.inputs[i], problem.targets[i], mask[i]) for i in range(BATCH)]
    values, jacobians, gradients = (np.stack(part) for part in zip(*found, strict=True))
    classes = values.shape[-1]
    values = values.reshape(BATCH, -1, classes)
    jacobian = jacobians.reshape(*values.shape, flat.size)
    keep = np.ones(values.shape)
    if problem.mask is not None:
        given = np.asarray(problem.mask, float)
        if problem.likelihood == Categorical():
            given = given[..., None]
        keep = np.broadcast_to(given.reshape(BATCH, values.shape[1], -1), values.shape)
    fisher = np.zeros((flat.size, flat.size))
    for i, t in itertools.product(range(BATCH), range(values.shape[1])):
        for probability, v in laws(problem.likelihood, values[i, t]):
            pulled = (keep[i, t] * v) @ jacobian[i, t]
            fisher += probability * np.outer(pulled, pulled) / BATCH
    return Oracle(jacobian, keep, values, fisher, np.sum(gradients**2, axis=-1))


def mean_loss(problem, params, inputs, targets, mask):
    return jnp.mean(losses(problem, problem.network(params, inputs), targets, mask))


def solve_hessian(problem):
    flat, cast = in_double(problem)
    return np.asarray(
        jit(
            jax.hessian(
                lambda v: mean_loss(
                    problem, cast(v), problem.inputs, problem.targets, problem.mask
                )
            )
        )(flat)
    )


# What runs the product.


def run(case, problem, function, per_example=()):
    """``function(problem, **options)`` as the case says: on devices, under jit.

    Args:
        per_example: names in the function's dictionary of results that are [B].
    """
    arrays = (problem.params, problem.inputs, problem.targets, problem.mask)

    shape, names = (case.devices,), ("data",)
    if case.axes == 2:
        shape, names = (max(case.devices // 2, 1), min(case.devices, 2)), ("data", "b")
    split = names[:1] if case.replicated else names

    def compute(arrays, **options):
        params, inputs, targets, mask = arrays
        here = problem._replace(
            params=params, inputs=inputs, targets=targets, mask=mask
        )
        return function(here, **options)

    if case.where == "one":
        return jit(compute)(arrays)
    kind = AxisType.Explicit if case.where == "explicit" else AxisType.Auto
    mesh = jax.make_mesh(
        shape,
        names,
        axis_types=(kind,) * len(names),
        devices=jax.devices()[: case.devices],
    )
    specs = (P(), P(split), P(split), P(split))
    placed = tuple(
        None if array is None else jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip(arrays, specs, strict=True)
    )
    if case.where != "shard_map":
        return jit(compute)(placed)
    # By shape alone: under another transformation the axis has no name.
    results = jax.eval_shape(compute, arrays)
    out_specs = {name: P(split) if name in per_example else P() for name in results}
    return jit(
        jax.shard_map(
            functools.partial(compute, axis_name=split),
            mesh=mesh,
            in_specs=(specs,),
            out_specs=out_specs,
        )
    )(placed)


def close(name, got, expected, tolerance):
    """Relative to the largest entry."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    assert got.shape == expected.shape, (name, got.shape, expected.shape)
    scale = max(np.max(np.abs(expected), initial=0), 1e-6)
    off = np.max(np.abs(got - expected), initial=0) / scale
    assert off <= tolerance, f"{name}: off by {off:.3e} of {scale:.3e}"


def flat_tree(tree):
    return np.asarray(ravel_pytree(tree)[0], float)


def sums_of_leaves(problem, vector):
    """The sum over each array of parameters of a vector's entries."""
    _, unravel = ravel_pytree(
        jax.tree.map(lambda a: a.astype(jnp.float64), problem.params)
    )
    return jax.tree.map(jnp.sum, unravel(jnp.asarray(vector)))


def check_exact(case, problem):
    oracle = solve(problem)
    size = oracle.fisher.shape[0]
    vector = np.random.default_rng(1).normal(size=size)
    cut = {"chunk_size": case.chunk_size}

    def function(here, **axis):
        _, unravel = ravel_pytree(here.params)
        options = here.options | cut
        own = unravel(jnp.asarray(vector))
        exact = options | axis | {"estimator": "exact"}
        return {
            "trace": curvature.fisher_trace(*here.args, **exact).mean,
            "layers": curvature.layer_fisher_traces(*here.args, **exact),
            "diagonal": curvature.fisher_diagonal(*here.args, **exact).mean,
            "norms": curvature.squared_gradient_norms(
                *here.args, here.targets, **options
            ),
            "product": curvature.fisher_vector_product(
                *here.args, own, **options, **axis
            ),
        }

    got = run(case, problem, function, {"norms"})
    limit = problem.tolerance
    close("trace", got["trace"], np.trace(oracle.fisher), limit)
    close("norms", got["norms"], oracle.norms, limit)
    close("diagonal", flat_tree(got["diagonal"]), np.diag(oracle.fisher), limit)
    layers = sums_of_leaves(problem, np.diag(oracle.fisher))
    close("layers", flat_tree(got["layers"]), flat_tree(layers), limit)
    close("product", flat_tree(got["product"]), oracle.fisher @ vector, limit)


def check_spectra(case, problem):
    oracle, hessian = solve(problem), solve_hessian(problem)
    size = len(hessian)
    vector = np.random.default_rng(1).normal(size=size)

    def loss(params):
        return mean_loss(problem, params, problem.inputs, problem.targets, problem.mask)

    @jit
    def function(params):
        _, unravel = ravel_pytree(params)
        args = (problem.network, params, problem.inputs)
        options = problem.options | {"chunk_size": case.chunk_size}
        operators = {
            "fisher": curvature.fisher_operator(*args, **options),
            "hessian": curvature.hessian_operator(loss, params),
        }
        pairs = {
            name: curvature.eigenpairs(
                operator, params, KEY, num=3, num_iterations=size
            )
            for name, operator in operators.items()
        }
        density = curvature.spectral_density(
            operators["hessian"], params, KEY, num_probes=2, num_steps=size
        )
        return {
            "pairs": pairs,
            "density": density,
            "hvp": curvature.hvp(loss, params, unravel(jnp.asarray(vector))),
            "largest": curvature.largest_eigenvalue(
                loss, params, KEY, num_iterations=size
            ).value,
            "largest of fisher": curvature.largest_fisher_eigenvalue(
                *args, KEY, num_iterations=size, **options
            ).value,
            "xtrace": curvature.hessian_xtrace(
                loss, params, KEY, num_products=size + size % 2
            ).mean,
        }

    got = function(problem.params)
    limit = 10 * problem.tolerance
    close("hvp", flat_tree(got["hvp"]), hessian @ vector, limit)
    for name, matrix in (("fisher", oracle.fisher), ("hessian", hessian)):
        values = np.linalg.eigvalsh(matrix)[::-1][:3]
        scale = max(np.abs(np.linalg.eigvalsh(matrix)).max(), 1e-6)
        pairs = got["pairs"][name]
        close(f"values {name}", pairs.values / scale, values / scale, limit)
        found = np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(pairs.vectors))
        off = found @ matrix - np.asarray(pairs.values)[:, None] * found
        close(f"vectors {name}", off / scale + 1, np.ones_like(off), 10 * limit)
    top = {
        "largest": np.linalg.eigvalsh(hessian)[-1],
        "largest of fisher": np.linalg.eigvalsh(oracle.fisher)[-1],
    }
    for name, value in top.items():
        close(name, got[name], value, limit)
    close("xtrace", 1 + got["xtrace"], 1 + np.trace(hessian), limit)
    # As many steps as parameters: all weight is on eigenvalues.
    density, values = got["density"], np.linalg.eigvalsh(hessian)
    close("weights", density.weights.sum(), 1.0, limit)
    away = np.abs(np.asarray(density.nodes)[:, None] - values).min(axis=1)
    scale = max(np.abs(values).max(), 1e-6)
    close("nodes", 1 + density.weights @ away / scale, 1.0, 10 * limit)


def within(name, values, exact, tolerance):
    """The mean of independent draws [D, ...] is the exact one within six errors."""
    values = np.asarray(values, float)
    error = np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
    scale = max(np.max(np.abs(exact), initial=0), 1e-6)
    off = np.abs(values.mean(axis=0) - exact) - 6 * error - 10 * tolerance * scale
    assert np.all(off <= 0), f"{name}: off by {np.max(off):.3e} above six errors"


def check_drawn(case, problem):
    oracle = solve(problem)
    draws = problem.likelihood.draws
    draw = draws[case.seed % len(draws)]
    keys = jax.random.split(KEY, 300)

    def function(here, **axis):
        options = here.options | axis | {"draw": draw, "chunk_size": case.chunk_size}

        def one(key):
            args = (*here.args, key)
            plain = {k: v for k, v in options.items() if k != "draw"}
            return {
                "per_example": curvature.fisher_trace(*args, **options).mean,
                "minibatch": curvature.fisher_trace(
                    *args, estimator="minibatch", **options
                ).mean,
                "forward": curvature.fisher_trace(
                    *args, estimator="forward", **plain
                ).mean,
                "paper's": BATCH * curvature.minibatch_fisher_trace(*args, **options),
                "layers": curvature.layer_fisher_traces(*args, **options),
                "diagonal": curvature.fisher_diagonal(*args, **options).mean,
            }

        return jax.lax.map(one, keys)

    got = run(case, problem, function)
    diagonal = np.diag(oracle.fisher)
    exact = {
        "layers": flat_tree(sums_of_leaves(problem, diagonal)),
        "diagonal": diagonal,
    }
    for name, values in got.items():
        values = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(values))
        expected = exact.get(name, np.array([np.trace(oracle.fisher)]))
        within(f"{name} by {draw}", values, expected, problem.tolerance)


def check_hessian(case, problem):
    oracle, hessian = solve(problem), solve_hessian(problem)
    keys = jax.random.split(KEY, 300)

    @jit
    def function(params):
        def loss(p):
            return mean_loss(problem, p, problem.inputs, problem.targets, problem.mask)

        def one(key):
            reverse, forward = (
                curvature.hessian_trace(
                    loss, params, key, num_probes=2, probes=probes, method=method
                ).mean
                for probes, method in (
                    ("gaussian", "reverse"),
                    ("rademacher", "forward"),
                )
            )
            both = curvature.fisher_and_hessian_trace(
                problem.network,
                params,
                problem.inputs,
                problem.targets,
                key,
                num_probes=2,
                **problem.options,
            )
            layers = curvature.layer_hessian_traces(loss, params, key, num_probes=2)
            return {
                "reverse": reverse,
                "forward": forward,
                "both, hessian": both.hessian.mean,
                "both, fisher": both.fisher.mean,
                "diagonal": curvature.hessian_diagonal(
                    loss, params, key, num_probes=2
                ).mean,
                "layers": jax.tree.map(
                    lambda e: e.mean, layers, is_leaf=lambda v: isinstance(v, Estimate)
                ),
            }

        return jax.lax.map(one, keys)

    got = function(problem.params)
    diagonal = np.diag(hessian)
    exact = {
        "layers": flat_tree(sums_of_leaves(problem, diagonal)),
        "diagonal": diagonal,
        "both, fisher": np.array([np.trace(oracle.fisher)]),
    }
    for name, values in got.items():
        values = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(values))
        expected = exact.get(name, np.array([np.trace(hessian)]))
        within(name, values, expected, problem.tolerance)


def slope_for(problem, outputs, targets):
    """∂losses/∂outputs at fixed targets, before the mask."""
    if problem.likelihood == Categorical():
        one_hot = (targets[..., None] == jnp.arange(outputs.shape[-1])).astype(float)
        return jax.nn.softmax(outputs) - one_hot
    if problem.likelihood == Bernoulli():
        return jax.nn.sigmoid(outputs) - targets
    return (outputs - targets) / problem.likelihood.scale**2


def signed(problem, outputs, z):
    """S(outputs) z for signs z."""
    if problem.likelihood == Categorical():
        p = jax.nn.softmax(outputs)
        return jnp.sqrt(p) * z - p * jnp.sum(jnp.sqrt(p) * z, axis=-1, keepdims=True)
    if problem.likelihood == Bernoulli():
        p = jax.nn.sigmoid(outputs)
        return jnp.sqrt(p * (1 - p)) * z
    return z / problem.likelihood.scale


def squares(tree):
    return sum(jnp.sum(a.astype(jnp.float64) ** 2) for a in jax.tree.leaves(tree))


def check_penalties(case, problem):
    shape = jax.eval_shape(problem.network, problem.params, problem.inputs)
    z = jax.random.rademacher(KEY, shape.shape, shape.dtype)
    outputs = problem.network(problem.params, problem.inputs)
    targets = {
        "labels": problem.likelihood.sample(KEY, outputs),
        "gradient": problem.targets,
    }
    if problem.likelihood == Categorical():
        places, classes = outputs.shape[:-1], outputs.shape[-1]
        targets["random"] = jax.random.randint(KEY, places, 0, classes)
    groups = [1, BATCH][case.seed % 2]

    def plain(kind):
        """Σ over groups of ‖(1/B) Jᵀ v‖², to be differentiated in reverse."""

        def scalar(params):
            def pulled(p):
                return problem.network(p, problem.inputs)

            outputs, pullback = jax.vjp(pulled, params)
            if kind == "signs":
                v = signed(problem, outputs, z)
            else:
                v = slope_for(problem, outputs, targets[kind])
            if problem.mask is not None:
                extra = v.ndim - problem.mask.ndim
                v = jnp.where(
                    problem.mask.reshape(*problem.mask.shape, *(1,) * extra), v, 0.0
                )
            number = groups if kind == "signs" else 1
            total = 0.0
            for k in range(number):
                mine = (jnp.arange(BATCH) * number // BATCH == k).astype(v.dtype)
                (g,) = pullback(v * mine.reshape(-1, *(1,) * (v.ndim - 1)) / BATCH)
                total += squares(g)
            return total

        return jax.value_and_grad(scalar)(problem.params)

    def of_the_first(params):
        outputs, pullback = jax.vjp(
            lambda p: problem.network(p, problem.inputs[:1]), params
        )
        v = slope_for(problem, outputs, problem.likelihood.sample(KEY, outputs))
        if problem.mask is not None:
            keep = problem.mask[:1]
            v = jnp.where(keep.reshape(*keep.shape, *(1,) * (v.ndim - keep.ndim)), v, 0)
        return squares(pullback(v)[0])

    def of_inputs(params):
        def slopes(x):
            found = losses(problem, problem.network(params, x), *rest)
            return jnp.sum(found)

        rest = (problem.targets, problem.mask)
        return jnp.sum(jax.grad(slopes)(problem.inputs) ** 2) / BATCH

    others = {} if case.tokens else {"inputs": of_inputs}
    if case.where != "shard_map":  # there the caller takes the first example
        others["single"] = of_the_first

    # Reverse over reverse through a gather's or a scan's own rules.
    expected = jit(
        lambda: (
            {kind: plain(kind) for kind in ("signs", *targets)}
            | {
                kind: jax.value_and_grad(scalar)(problem.params)
                for kind, scalar in others.items()
            }
        )
    )()

    def function(here, **axis):
        options = here.options | axis | {"chunk_size": case.chunk_size}

        def at(params, kind):
            args = (here.network, params, here.inputs)
            if kind == "signs":
                return penalties.fisher_penalty(
                    *args, KEY, draw="rademacher", num_groups=groups, **options
                )
            if kind == "labels":
                return penalties.fisher_penalty(*args, KEY, **options)
            if kind == "gradient":
                return penalties.gradient_penalty(*args, here.targets, **options)
            if kind == "random":
                return penalties.random_label_penalty(*args, KEY, **options)
            if kind == "single":
                return penalties.single_example_fisher_penalty(
                    *args, KEY, **here.options
                )
            return penalties.input_gradient_penalty(*args, here.targets, **options)

        return {
            kind: jax.value_and_grad(functools.partial(at, kind=kind))(here.params)
            for kind in expected
        }

    got = run(case, problem, function)
    for kind, pair in got.items():
        value, slope = expected[kind]
        close(f"{kind}, value", pair[0], value, problem.tolerance)
        close(
            f"{kind}, gradient",
            flat_tree(pair[1]),
            flat_tree(slope),
            10 * problem.tolerance,
        )


def check_batches(case, problem):
    oracle = solve(problem)
    cut = 1 + case.seed % (BATCH - 1)

    def part(where):
        return jax.tree.map(lambda a: a[where], (problem.inputs, problem.mask))

    def one(batch):
        inputs, mask = batch
        return curvature.fisher_trace(
            problem.network,
            problem.params,
            inputs,
            likelihood=problem.likelihood,
            mask=mask,
            estimator="exact",
            chunk_size=case.chunk_size,
        )

    batches = [part(slice(None, cut)), part(slice(cut, None))]
    got = curvature.over_batches(jit(one), batches)
    close("over batches", got.mean, np.trace(oracle.fisher), problem.tolerance)


CHECKS = {
    "exact": check_exact,
    "spectra": check_spectra,
    "drawn": check_drawn,
    "hessian": check_hessian,
    "penalties": check_penalties,
    "batches": check_batches,
}


def main(number, seed=0, seconds=None):
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) >= 4
    began, tried, wrong = time.monotonic(), {}, 0

    @hypothesis.settings(
        max_examples=int(number),
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(int(seed))
    @hypothesis.given(case=cases())
    def every(case):
        nonlocal wrong
        if seconds is not None and time.monotonic() - began > float(seconds):
            return
        tried[case.what] = tried.get(case.what, 0) + 1
        try:
            CHECKS[case.what](case, build(case))
        except Exception as error:
            wrong += 1
            frames = traceback.extract_tb(error.__traceback__)
            where = ", ".join(f"{f.name}:{f.lineno}" for f in frames[-3:])
            said = f"{type(error).__name__}: {str(error)[:1500]}"
            print(f"WRONG {case}\n{said} ({where})", flush=True)
        if sum(tried.values()) % 20 == 0:
            jax.clear_caches()  # a process has only so many memory mappings

    every()
    print(f"tried {sum(tried.values())} wrong {wrong} {tried}")


if __name__ == "__main__":
    main(*sys.argv[1:])
