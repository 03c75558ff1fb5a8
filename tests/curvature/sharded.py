"""Everything on four devices against one; run by test_sharded.py in its own process.

Prints one line per comparison: name and the largest relative difference.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fisher_jax import baselines, curvature, penalties
from tests.curvature import networks

BATCH = 8


def quantities(problem, params, inputs, labels, key, **options):
    """All that takes axis_name, as one pytree of global values."""
    network = (problem.logits_fn, params, inputs)
    traces = {
        f"{estimator}-{draws}-{chunk_size}": curvature.fisher_trace(
            *network,
            key,
            estimator=estimator,
            draw=draw,
            num_draws=draws,
            chunk_size=chunk_size,
            **options,
        ).mean
        for estimator, draw, draws, chunk_size in (
            ("per_example", "labels", 1, None),
            ("per_example", "rademacher", 3, 1),
            ("exact", "labels", 1, None),
            ("minibatch", "labels", 2, 1),
            ("forward", "labels", 2, 1),
        )
    }
    errors = {
        str(draws): curvature.fisher_trace(
            *network, key, num_draws=draws, **options
        ).sem
        for draws in (1, 3)
    }
    others = {
        "minibatch_trace": curvature.minibatch_fisher_trace(*network, key, **options),
        "layers": curvature.layer_fisher_traces(*network, key, **options),
        "product": curvature.fisher_vector_product(*network, params, **options),
        "eigenvalue": curvature.largest_fisher_eigenvalue(
            *network, key, num_iterations=5, **options
        ).value,
    }
    optimizer = penalties.add_penalty(0.5)
    renewed = optimizer.update(
        params,
        optimizer.init(params),
        params,
        penalty_fn=lambda p: penalties.fisher_penalty(
            problem.logits_fn, p, inputs, key, **options
        ),
    )
    others |= {
        "both_traces": curvature.fisher_and_hessian_trace(
            *network, labels, key, num_probes=3, **options
        ),
        "added": renewed[0],
        "kept": renewed[1].penalty_gradient,
    }
    scalars = {
        "fisher": lambda p, x: penalties.fisher_penalty(
            problem.logits_fn, p, x, key, **options
        ),
        "reparameterised": lambda p, x: penalties.fisher_penalty(
            problem.logits_fn, p, x, key, draw="rademacher", **options
        ),
        "importance": lambda p, x: penalties.fisher_penalty(
            problem.logits_fn, p, x, key, draw="importance", **options
        ),
        "difference": lambda p, x: penalties.fisher_penalty(
            problem.logits_fn, p, x, key, method="finite_difference", **options
        ),
        "gradient": lambda p, x: penalties.gradient_penalty(
            problem.logits_fn, p, x, labels, **options
        ),
        "random_label": lambda p, x: penalties.random_label_penalty(
            problem.logits_fn, p, x, key, **options
        ),
        "input_gradient": lambda p, x: penalties.input_gradient_penalty(
            problem.logits_fn, p, x, labels, **options
        ),
    }
    slopes = {k: jax.value_and_grad(s)(params, inputs) for k, s in scalars.items()}
    return traces | {"sem": errors} | others | slopes


def per_example(problem, params, inputs, labels):
    """What is local to each example, [BATCH]."""
    return curvature.squared_gradient_norms(problem.logits_fn, params, inputs, labels)


def compare(name, got, expected):
    def difference(a, b):
        a, b = np.asarray(a), np.asarray(b)  # nothing is compiled for it
        return np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-300)

    pairs = jax.tree.map(difference, got, expected)
    for path, value in jax.tree_util.tree_leaves_with_path(pairs):
        print(f"{name}{jax.tree_util.keystr(path)} {value:.3e}")


def check_quantities(mesh, split):
    problem = networks.build("mlp_tanh", batch=BATCH)
    arrays = (problem.params, problem.inputs, problem.labels, jax.random.key(3))
    specs = (P(), split, split, P())
    sharded = jax.device_put(arrays, tuple(NamedSharding(mesh, s) for s in specs))
    compute = functools.partial(quantities, problem)
    whole = jax.jit(compute)(*arrays)
    compare("jit", jax.jit(compute)(*sharded), whole)
    local = functools.partial(compute, axis_name=mesh.axis_names)
    for check in (True, False):
        mapped = jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check
        )
        compare(f"shard_map-{check}", jax.jit(mapped)(*sharded), whole)
    forgotten = jax.shard_map(
        compute, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True
    )
    with pytest.raises(ValueError, match=r"axis_name=\('columns', 'rows'\)"):
        forgotten(*sharded)


def check_tied(mesh, split):
    """Diagonals, and norms where they need the cotangents of several places."""
    random = np.random.default_rng(0)
    params = {
        "rows": jnp.asarray(random.normal(size=(5, 2))),
        "kernel": jnp.asarray(random.normal(size=(2, 2))),
    }
    tokens = jnp.asarray(random.integers(0, 5, (BATCH, 3)))
    key = jax.random.key(3)

    def tied(p, x):
        return jnp.tanh(p["rows"][x] @ p["kernel"]) @ p["rows"].T

    for chunk_size in (None, 1):

        def quantities(p, x, axis_name=None, chunk_size=chunk_size):
            of = functools.partial(
                curvature.fisher_diagonal,
                *(tied, p, x, key),
                chunk_size=chunk_size,
                axis_name=axis_name,
            )
            layers = curvature.layer_fisher_traces(
                *(tied, p, x, key), chunk_size=chunk_size, axis_name=axis_name
            )
            return of(estimator="exact").mean, of(num_draws=3), layers

        mapped = jax.shard_map(
            functools.partial(quantities, axis_name=mesh.axis_names),
            mesh=mesh,
            in_specs=(P(), split),
            out_specs=P(),
        )
        compare(
            f"tied {chunk_size}",
            jax.jit(mapped)(params, tokens),
            jax.jit(quantities)(params, tokens),
        )


def check_gaussian(mesh, split):
    """Exact traces where the factor of the law is the same on all devices."""
    problem = networks.build("mlp_tanh", batch=BATCH)

    def exact(params, inputs, **axis):
        options = {"estimator": "exact", "likelihood": curvature.Gaussian(0.7)} | axis
        network = (problem.logits_fn, params, inputs)
        return (
            curvature.fisher_trace(*network, **options).mean,
            curvature.layer_fisher_traces(*network, **options),
            curvature.fisher_diagonal(*network, **options).mean,
        )

    mapped = jax.shard_map(
        functools.partial(exact, axis_name=mesh.axis_names),
        mesh=mesh,
        in_specs=(P(), split),
        out_specs=P(),
    )
    arrays = (problem.params, problem.inputs)
    compare("Gaussian", jax.jit(mapped)(*arrays), jax.jit(exact)(*arrays))


def check_convolutions(mesh, split):
    # XLA's partitioner is wrong on JAX's own rule for their kernels; see _layers.py.
    for name in ("conv_pool", "conv_weight_norm"):
        problem = networks.build(name, batch=BATCH)
        arrays = (problem.params, problem.inputs, problem.labels)
        specs = (P(), split, split)
        sharded = jax.device_put(arrays, tuple(NamedSharding(mesh, s) for s in specs))
        compute = functools.partial(per_example, problem)
        whole = jax.jit(compute)(*arrays)
        compare(f"{name} jit", jax.jit(compute)(*sharded), whole)
        mapped = jax.jit(
            jax.shard_map(compute, mesh=mesh, in_specs=specs, out_specs=split)
        )
        compare(f"{name} shard_map", mapped(*sharded), whole)
        text = mapped.lower(*sharded).compile().as_text()
        assert "all-gather" not in text
        assert "all-reduce" not in text


def on_explicit_axes(problem, params, inputs, labels, key, scale):
    """Functions of what mixes, cuts or maps over the batch, each to be compiled alone.

    Many collectives in one program may wait for each other on few threads.
    """
    # An array that the network closes over, as batch norm's statistics are.
    closed = problem._replace(logits_fn=lambda p, x: scale * problem.logits_fn(p, x))
    network = (closed.logits_fn, params, inputs)

    def penalty(**options):
        return jax.value_and_grad(
            lambda p: penalties.fisher_penalty(
                closed.logits_fn, p, inputs, key, **options
            )
        )(params)

    return {
        "norms": lambda: per_example(closed, params, inputs, labels),
        "mixup": lambda: baselines.mixup(key, inputs, labels, 1.0),
        "trace": lambda: curvature.fisher_trace(*network, key, chunk_size=1),
        "layers": lambda: curvature.layer_fisher_traces(*network, key, num_draws=2),
        "product": lambda: curvature.fisher_vector_product(
            *network, params, chunk_size=1
        ),
        "whole": lambda: penalty(),
        "chunks": lambda: penalty(chunk_size=1, draw="rademacher"),
        "groups": lambda: penalty(num_groups=4),
        "first": lambda: penalties.single_example_fisher_penalty(*network, key),
    }


def check_explicit_axes(split):
    """Under plain jit, on the mesh that jax.make_mesh makes by default."""
    mesh = jax.make_mesh((2, 2), ("rows", "columns"))
    assert set(mesh.axis_types) == {AxisType.Explicit}
    for network, chosen in (("mlp_tanh", None), ("conv_pool", ("norms", "chunks"))):
        problem = networks.build(network, batch=BATCH)
        arrays = (problem.params, problem.inputs, problem.labels, jax.random.key(3))
        arrays = (*arrays, jnp.full(networks.NUM_CLASSES, 1.5))
        specs = (P(), split, split, P(), P())
        sharded = jax.device_put(arrays, tuple(NamedSharding(mesh, s) for s in specs))
        for name in chosen or on_explicit_axes(problem, *arrays):

            def one(*arrays, problem=problem, name=name):
                return on_explicit_axes(problem, *arrays)[name]()

            whole = jax.jit(one)(*arrays)
            compare(f"explicit {network} {name}", jax.jit(one)(*sharded), whole)
        # Outside jit, as its check looks at values.
        traces = [
            curvature.fisher_trace(
                problem.logits_fn, params, inputs, estimator="exact", check=True
            ).mean
            for params, inputs, *_ in (sharded, arrays)
        ]
        compare(f"explicit {network} checked", *traces)


def of_a_hessian(loss, params, key):
    """All that takes a loss, or an operator, and no axis_name."""
    operator = curvature.hessian_operator(loss, params)
    trace = functools.partial(curvature.hessian_trace, loss, params, key, num_probes=3)
    return {
        "product": curvature.hvp(loss, params, params),
        "trace": (trace(), trace(method="forward")),
        "xtrace": curvature.hessian_xtrace(loss, params, key, num_products=4).mean,
        "diagonal": curvature.hessian_diagonal(loss, params, key, num_probes=3),
        "xdiag": curvature.hessian_diagonal(
            loss, params, key, num_probes=4, method="xdiag"
        ).mean,
        "layers": curvature.layer_hessian_traces(loss, params, key, num_probes=3),
        "largest": curvature.largest_eigenvalue(loss, params, key, num_iterations=4),
        "pairs": curvature.eigenpairs(operator, params, key, num_iterations=4).values,
        "density": curvature.spectral_density(
            operator, params, key, num_probes=2, num_steps=3
        ),
    }


def check_hessians(mesh, split):
    """Each device's own, of its own parameters; and of a loss that is a sum."""
    problem = networks.build("mlp_tanh", batch=BATCH)
    key = jax.random.key(3)

    def quantities(params, inputs):
        def loss(p):
            return jnp.mean(jax.nn.logsumexp(problem.logits_fn(p, inputs), axis=1) ** 2)

        return of_a_hessian(loss, params, key)

    def of_an_operator(inputs):
        def operator(vector):
            return jax.tree.map(lambda v: inputs.sum() * v, vector)

        replicated = operator, problem.params, key
        density = curvature.spectral_density(*replicated, num_probes=1, num_steps=2)
        return density, curvature.eigenpairs(*replicated, num_iterations=2).values

    def each_its_own(params, inputs):
        params = jax.lax.pcast(params, mesh.axis_names, to="varying")
        both = quantities(params, inputs), of_an_operator(inputs)
        return jax.tree.map(lambda a: a[None], both)

    mapped = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), split))
    own = jax.jit(mapped(each_its_own, out_specs=split))(problem.params, problem.inputs)
    of_sum = jax.jit(mapped(quantities, out_specs=P()))(problem.params, problem.inputs)
    parts = problem.inputs.reshape(4, 2, *problem.inputs.shape[1:])
    expected = jax.jit(jax.lax.map, static_argnums=0)(
        lambda x: (quantities(problem.params, x), of_an_operator(x)), parts
    )
    compare("own Hessian", own, expected)

    def sum_of_losses(p):
        logits = jax.vmap(problem.logits_fn, (None, 0))(p, parts)
        return jnp.sum(jnp.mean(jax.nn.logsumexp(logits, axis=2) ** 2, axis=1))

    whole = jax.jit(of_a_hessian, static_argnums=0)(sum_of_losses, problem.params, key)
    compare("Hessian of a sum", of_sum, whole)


def check_first_example(mesh):
    """Of a batch along one of two axes: a slice of it gave NaN, by XLA's padding."""
    key = jax.random.key(0)
    tokens = jax.random.randint(key, (4, 3), 0, 5)
    mask = jnp.arange(24).reshape(4, 3, 2) % 5 > 0
    params = {
        "table": jax.random.normal(key, (5, 4)),
        "kernel": jax.random.normal(key, (4, 2)),
    }

    def network(params, tokens):
        rows = params["table"][tokens]
        rows -= rows.mean(-1, keepdims=True)
        rows /= jnp.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5)
        return rows @ params["kernel"]

    @jax.jit
    def penalty(params, tokens, mask):
        return jax.value_and_grad(
            lambda p: penalties.single_example_fisher_penalty(
                network, p, tokens, key, likelihood=curvature.Bernoulli(), mask=mask
            )
        )(params)

    specs = (P(), P("rows"), P("rows"))
    arrays = params, tokens, mask
    sharded = jax.device_put(arrays, tuple(NamedSharding(mesh, s) for s in specs))
    compare("the first example of a batch along one axis", penalty(*sharded),
            penalty(*arrays))  # fmt: skip


def main():
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 4
    mesh = jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(AxisType.Auto,) * 2)
    split = P(("rows", "columns"))
    check_quantities(mesh, split)
    check_tied(mesh, split)
    check_gaussian(mesh, split)
    check_convolutions(mesh, split)
    check_explicit_axes(split)
    check_hessians(mesh, split)
    check_first_example(mesh)
    print("done 0")


if __name__ == "__main__":
    main()
