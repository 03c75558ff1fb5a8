import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fisher_jax import curvature, penalties
from tests.compilation import quickly
from tests.curvature import networks

ROOT = Path(__file__).parents[2]


def test_four_devices_give_what_one_gives():
    flags = "--xla_force_host_platform_device_count=4"
    completed = subprocess.run(
        [sys.executable, "-m", "tests.curvature.sharded"],
        cwd=ROOT,
        # NPROC: XLA's threads. Of as few as devices all may come to wait, each for
        # another of the program's collectives.
        env=quickly(flags) | {"JAX_PLATFORMS": "cpu", "NPROC": "16"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-4000:]
    lines = [line.rsplit(" ", 1) for line in completed.stdout.splitlines()]
    assert lines[-1] == ["done", "0"]
    wrong = [(what, value) for what, value in lines if not float(value) < 1e-6]
    assert not wrong
    assert len(lines) > 100


@jax.enable_x64(True)
def test_an_axis_of_vmap_is_no_mesh_axis():
    """The parts of a batch under jax.vmap with a name, as pmap's are by device."""
    problem = networks.build("mlp_tanh", batch=4)
    key = jax.random.key(3)
    network = (problem.logits_fn, problem.params)

    def values(inputs, labels, **axis):
        def penalty(params):
            return penalties.fisher_penalty(
                problem.logits_fn, params, inputs, key, num_groups=4, **axis
            ) + penalties.gradient_penalty(
                problem.logits_fn, params, inputs, labels, chunk_size=1, **axis
            )

        return (
            curvature.fisher_trace(*network, inputs, estimator="exact", **axis).mean,
            curvature.fisher_trace(*network, inputs, key, **axis).mean,
            curvature.fisher_diagonal(*network, inputs, estimator="exact", **axis).mean,
            curvature.fisher_vector_product(*network, inputs, problem.params, **axis),
            jax.value_and_grad(penalty)(problem.params),
        )

    parts = [a.reshape(2, 2, *a.shape[1:]) for a in (problem.inputs, problem.labels)]
    split = jax.vmap(functools.partial(values, axis_name="parts"), axis_name="parts")
    jax.tree.map(
        lambda got, whole: np.testing.assert_allclose(
            got, jnp.stack([whole] * 2), rtol=1e-10
        ),
        jax.jit(split)(*parts),
        values(problem.inputs, problem.labels),
    )
