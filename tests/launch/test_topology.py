"""What --topology reads off compiled programs; with their compilers, the real ones."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from fisher_jax import parallel
from fisher_jax.curvature import fisher_trace
from fisher_jax.errors import UserError
from fisher_jax.models import WideResNet
from fisher_jax.train import cost
from fisher_jax.train.config import load_config
from launch import topology
from tests.command import ROOT

BASE = str(ROOT / "experiments" / "base.py")
PENALISED = [("penalty.name", "fisher"), ("measure.hessian_probes", "2")]
# As the TPU compiler prints a loop of seven turns, with what follows it.
TEXT = """HloModule jit_f
%fused (p: f32[4]) -> f32[4] {
  ROOT %t = f32[4]{0} tanh(%p), backend_config={"estimated_cycles":"1000"}
}

%body (a: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f = f32[4]{0} fusion(%g), calls=%fused, backend_config={"estimated_cycles":"30"}
}

%condition (a: (s32[], f32[4])) -> pred[] {
  %c = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[] compare(%g, %c), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%tuple), condition=%condition, body=%body
  %r = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce-start(%w), to_apply=%add
  %s = f32[5]{0} all-gather(%r), dimensions={0}
  ROOT %h = f32[4]{0} fusion(%r), calls=%fused, backend_config={"estimated_cycles":"5"}
}
"""
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler: extra tpu"
)
needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="XLA's GPU compiler"
)


def test_cycles_in_a_loop_count_as_often_as_it_runs():
    assert topology.estimated_cycles(TEXT) == 7 * 30 + 5


def test_collectives_are_counted_by_the_bytes_of_their_results():
    assert topology.collectives(TEXT) == {"all-reduce": 32, "all-gather": 20}


def test_a_run_has_six_programs_and_they_are_those_of_its_mesh():
    mesh = jax.sharding.Mesh(jax.devices()[:1], (parallel.DATA_AXIS,))
    config = load_config(BASE, [*PENALISED, ("model.name", "simple_cnn")])
    programs = cost.lower_programs(config, mesh)
    assert set(programs) == {
        "plain step", "batch", "step with an update", "Tr(F)", "Tr(H)", "evaluation",
    }  # fmt: skip
    one = topology.compile_program(programs["evaluation"]())
    # The batch as bytes and its labels, the parameters, and values on top.
    held = config.measure.batch_size * (8 * 8 + 4) + 4 * 99_178
    assert one.memory > held
    assert one.collectives == {}
    with pytest.raises(UserError, match="batch_size=7 is not a multiple of the 2"):
        cost.lower_programs(
            load_config(BASE, [("train.batch_size", "7")]),
            jax.sharding.AbstractMesh((2,), (parallel.DATA_AXIS,)),
        )


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "h100:0", "tpu:2", "a100:1x8"])
def test_devices_that_are_not_known_are_said_in_one_line(name):
    with pytest.raises(UserError, match=f"--topology={name}: expected"):
        topology.find_slice(name)


def test_the_compiler_that_is_missing_is_named():
    if importlib.util.find_spec("libtpu") is None:
        with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
            topology.find_slice("v5e:4x4")
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        with pytest.raises(UserError, match="pip install jax-cuda12-plugin=="):
            topology.find_slice("h100:8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("v5e:4x4", marks=needs_libtpu),
        pytest.param("h100:8", marks=needs_cuda),
    ],
)
def test_steps_send_what_the_page_on_pods_says(name):
    """A plain step one gradient; an update three: the inner, the penalty's, the loss's.

    TPUs may join them; each also sends some scalars.
    """
    mesh = topology.find_slice(name).mesh
    programs = cost.lower_programs(load_config(BASE, PENALISED[:1]), mesh)
    size = 4 * 99_178
    for label, times in (("plain step", 1), ("step with an update", 3)):
        sent = topology.compile_program(programs[label]()).collectives
        assert set(sent) == {"all-reduce"}
        assert sent["all-reduce"] == pytest.approx(times * size, rel=0.02)


@pytest.mark.slow
@needs_libtpu
def test_a_batch_leaves_the_other_images_alone():
    """Held as [N, H, W, channels] the set would be turned around for each batch."""
    mesh = topology.find_slice("v5e:1").mesh
    changes = [("dataset.name", "cifar10"), ("model.name", "simple_cnn")]
    programs = cost.lower_programs(load_config(BASE, changes), mesh)
    cycles = {
        label: topology.compile_program(programs[label]()).cycles
        for label in ("batch", "plain step")
    }
    assert 0 < cycles["batch"] < 0.1 * cycles["plain step"]


@pytest.mark.slow
@needs_libtpu
def test_ten_steps_in_a_call_cost_what_they_cost_alone():
    """Nothing of the images is laid out anew for each, as a loop might have it."""
    mesh = topology.find_slice("v5e:1").mesh
    changes = [("dataset.name", "cifar10"), ("model.name", "simple_cnn"), PENALISED[0]]
    programs = cost.lower_programs(load_config(BASE, changes), mesh)
    call, batch, plain, update = (
        topology.compile_program(programs[label]()).cycles
        for label in (
            "10 steps in a call",
            "batch",
            "plain step",
            "step with an update",
        )
    )
    assert 0 < call < 1.1 * (10 * batch + 9 * plain + update)


@pytest.mark.slow
@needs_cuda
def test_a_trace_of_5000_images_stays_below_one_gibibyte():
    """WRN-44-3 holds more beside its values than the other networks."""
    model = WideResNet(100, depth=44, width=3, normalisation="skip_init")
    mesh = topology.find_slice("h100:1").mesh

    def trace(params, images, key):
        def logits_fn(params, inputs):
            return model.apply({"params": params}, inputs, train=False)

        return fisher_trace(logits_fn, params, images, key)

    key, image = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(model.init, key, image)["params"]
    images = jax.ShapeDtypeStruct((5000, 32, 32, 3), jnp.float32)
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=parallel.replicated(mesh)
        ),
        (params, images, jax.eval_shape(lambda: key)),
    )
    compiled = jax.jit(trace).lower(*placed).compile()
    assert 0 < compiled.memory_analysis().temp_size_in_bytes < 2**30
