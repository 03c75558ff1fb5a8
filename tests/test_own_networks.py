"""The page on networks of one's own: its code runs, and what it warns of is found."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax import curvature

PAGE = Path(__file__).parents[1] / "docs" / "own_networks.md"


def test_the_code_of_the_page_runs_in_order():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    traces = []
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        traces.append(names.get("trace"))
    finite = [float(trace.mean) > 0 for trace in traces if trace is not None]
    assert len(finite) == len(blocks) - 1
    assert all(finite)
    assert np.isfinite(names["loss"])
    assert int(names["optimizer"].step[...]) == 3


class Normalised(nn.Module):
    is_training: bool

    @nn.compact
    def __call__(self, inputs):
        x = nn.Dense(4)(inputs)
        x = nn.BatchNorm(use_running_average=not self.is_training)(x)
        return nn.Dense(3)(nn.relu(x))


@pytest.mark.parametrize("is_training", [True, False])
def test_outputs_that_depend_on_the_batch_are_found_on_request(is_training):
    network = Normalised(is_training)
    inputs = jax.random.normal(jax.random.key(0), (7, 5))
    variables = network.init(jax.random.key(1), inputs)

    def outputs_fn(params, inputs):
        outputs = network.apply(
            variables | {"params": params}, inputs, mutable=["batch_stats"]
        )
        return outputs[0]

    def trace(**options):
        return curvature.fisher_trace(
            outputs_fn, variables["params"], inputs, jax.random.key(2), **options
        )

    def traces(**options):
        labels = jnp.zeros(7, jnp.int32)
        return curvature.fisher_and_hessian_trace(
            outputs_fn, variables["params"], inputs, labels, jax.random.key(2),
            piecewise_linear=True, **options,
        ).fisher  # fmt: skip

    if is_training:
        for function in (trace, traces):
            with pytest.raises(ValueError, match=r"change by up to .* with the rest"):
                function(check=True)
    else:
        np.testing.assert_allclose(traces(check=True), traces(), rtol=1e-5)
        np.testing.assert_allclose(trace(check=True), trace(), rtol=1e-5)


def test_a_check_under_jit_is_refused():
    def outputs_fn(params, inputs):
        return inputs @ params

    @jax.jit
    def trace(params):
        return curvature.fisher_trace(
            outputs_fn, params, jnp.ones((2, 3)), jax.random.key(0), check=True
        )

    with pytest.raises(ValueError, match="check: expected False under jit"):
        trace(jnp.ones((3, 2)))
