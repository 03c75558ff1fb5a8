"""What each initialisation scheme promises, and networks that break the promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fisher_jax.models import MODELS
from fisher_jax.models.fixup import branch_initialiser
from fisher_jax.models.he import he_normal
from fisher_jax.models.resnet import WIDTHS, WeightNormBlock, blocks_per_stage
from fisher_jax.models.weight_norm import LINEAR_GAIN, RELU_GAIN, WeightNormConv
from tests.models.small import build, images, initial, trained
from tests.tiers import some


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 9 * 64), ("fan_out", 9 * 96)])
def test_he_draws_normals_of_variance_two_by_fan(mode, fan):
    draws = he_normal(mode)(jax.random.key(0), (3, 3, 64, 96))
    scaled = np.asarray(draws).ravel() * np.sqrt(fan / 2)
    error = 1 / np.sqrt(scaled.size)
    assert abs(scaled.mean()) < 4 * error
    assert abs(scaled.std() - 1) < 4 * error / np.sqrt(2)
    # A truncated normal (Flax's he_normal) would have no tail and kurtosis below 3.
    assert abs(scaled).max() > 4
    assert abs((scaled**4).mean() - 3) < 4 * np.sqrt(96) * error


def test_he_draws_differ_by_key_and_layer():
    init = jax.jit(build("wide_resnet-skip_init").init)
    inputs = images("wide_resnet-skip_init", 1)
    one, other = (
        init(jax.random.key(seed), inputs)["params"]["stage1_block1"] for seed in (0, 1)
    )
    assert not np.any(one["conv2"]["kernel"] == other["conv2"]["kernel"])
    assert not np.any(one["conv2"]["kernel"][:, :, :16] == one["conv1"]["kernel"])


@pytest.mark.parametrize(("layers", "power"), [(2, -1 / 2), (3, -1 / 4)])
def test_fixup_scales_branches_by_the_number_of_branches(layers, power):
    shape = (3, 3, 64, 64)
    plain = he_normal("fan_out")(jax.random.key(0), shape)
    scaled = branch_initialiser(16, layers)(jax.random.key(0), shape)
    np.testing.assert_allclose(scaled, plain * 16**power, rtol=1e-6)


def captured(model, variables, inputs):
    @jax.jit
    def run(v, x):
        return model.apply(v, x, capture_intermediates=True, mutable=["intermediates"])

    _, state = run(variables, inputs)
    return state["intermediates"]


def block_outputs(outputs):
    """Blocks in order: (name, output, output of the shortcut or None)."""
    return [
        (
            name,
            outputs[name]["__call__"][0],
            outputs[name]["shortcut"]["__call__"][0]
            if "shortcut" in outputs[name]
            else None,
        )
        for name in sorted(outputs)
        if name.startswith("stage")
    ]


def test_skip_init_branches_are_the_identity_at_initialisation():
    model = MODELS["wide_resnet"](10, depth=14, width=1, normalisation="skip_init")
    inputs = images("wide_resnet-skip_init", 2)
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    outputs = captured(model, variables, inputs)
    before = outputs["stem"]["__call__"][0]
    for name, output, shortcut in block_outputs(outputs):
        branch = outputs[name]["conv2"]["__call__"][0]
        assert np.all(output == (before if shortcut is None else shortcut)), name
        assert np.mean(branch**2) > 0.01, "the branch itself is not dead"
        before = output


def test_skip_init_scalars_learn_from_the_first_step():
    model = build("wide_resnet-skip_init")
    inputs = images("wide_resnet-skip_init", 2)
    params = initial("wide_resnet-skip_init")["params"]
    logit_gradient = jax.jit(
        jax.grad(lambda p: model.apply({"params": p}, inputs)[0, 0])
    )
    gradient = logit_gradient(params)
    blocks = [name for name in params if name.startswith("stage")]
    assert len(blocks) == 3
    for name in blocks:
        assert gradient[name]["skip_init"]["scale"] != 0
        assert np.all(gradient[name]["conv2"]["kernel"] == 0)


def test_a_trained_skip_init_branch_is_not_the_identity():
    model = build("wide_resnet-skip_init")
    inputs = images("wide_resnet-skip_init", 2)
    outputs = captured(model, trained("wide_resnet-skip_init"), inputs)
    for _, output, shortcut in block_outputs(outputs):
        assert np.any(output != shortcut)


def test_fixup_branches_are_the_identity_and_logits_zero_at_initialisation():
    model = build("fixup_resnet")
    inputs = images("fixup_resnet", 2)
    outputs = captured(model, initial("fixup_resnet"), inputs)
    before = None
    for name, output, shortcut in block_outputs(outputs):
        if shortcut is not None:
            assert np.all(output == np.maximum(shortcut, 0)), name
        elif before is not None:
            assert np.all(output == before), name
        branch = outputs[name]["conv1"]["__call__"][0]
        assert np.mean(branch**2) > 0.001, "the branch itself is not dead"
        before = output
    assert np.mean(before**2) > 0.001
    assert np.all(outputs["__call__"][0] == 0)


def test_fixup_s_classifier_learns_first_and_then_the_rest():
    model = build("fixup_resnet")
    inputs = images("fixup_resnet", 2)
    params = initial("fixup_resnet")["params"]

    @jax.jit
    @jax.grad
    def loss_gradient(p):
        return -jax.nn.log_softmax(model.apply({"params": p}, inputs))[0, 0]

    gradient = loss_gradient(params)
    assert np.any(gradient["classifier"]["kernel"] != 0)
    assert np.all(gradient["stem"]["kernel"] == 0)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert np.any(loss_gradient(moved)["stem"]["kernel"] != 0)


# Arpit et al. 2019.


@pytest.mark.parametrize(
    ("kernel_size", "channels", "features", "gain"),
    [(1, 32, 64, LINEAR_GAIN), (3, 64, 32, RELU_GAIN), (3, 32, 32, RELU_GAIN)],
)
def test_a_weight_normalised_layer_keeps_norms_up_to_its_gain(
    kernel_size, channels, features, gain
):
    layer = WeightNormConv(features, kernel_size, gain)
    inputs = jax.random.normal(jax.random.key(0), (8, 12, 12, channels))
    params = layer.init(jax.random.key(1), inputs)
    # The border sees padding.
    outputs = layer.apply(params, inputs)[:, 1:-1, 1:-1]
    if gain == RELU_GAIN:
        outputs = jax.nn.relu(outputs)
    kept = jnp.mean(jnp.sum(outputs**2, -1)) / jnp.mean(jnp.sum(inputs**2, -1))
    assert kept == pytest.approx(1, abs=0.05)


def test_directions_are_orthogonal_and_lengths_apart():
    layer = WeightNormConv(16, 3, RELU_GAIN)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))["params"]
    directions = params["direction"].reshape(-1, 16)
    np.testing.assert_allclose(directions.T @ directions, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(params["length"], np.sqrt(2 * 32 / 16), rtol=1e-6)


@pytest.mark.parametrize("strides", [1, 2])
def test_the_length_of_a_direction_changes_nothing(strides):
    layer = WeightNormConv(6, 3, RELU_GAIN, strides)
    inputs = jax.random.normal(jax.random.key(0), (2, 7, 7, 5))
    params = layer.init(jax.random.key(1), inputs)["params"]
    factors = jnp.array([0.01, 0.5, 1.0, 3.0, 40.0, 1000.0])
    rescaled = {**params, "direction": factors * params["direction"]}
    outputs = layer.apply({"params": params}, inputs)
    np.testing.assert_allclose(
        layer.apply({"params": rescaled}, inputs), outputs, rtol=1e-4, atol=1e-5
    )
    longer = {**params, "length": 2 * params["length"]}
    np.testing.assert_allclose(
        layer.apply({"params": longer}, inputs), 2 * outputs, rtol=1e-5
    )


def test_gradients_are_orthogonal_to_directions():
    layer = WeightNormConv(6, 3, RELU_GAIN)
    inputs = jax.random.normal(jax.random.key(0), (2, 7, 7, 5))
    params = layer.init(jax.random.key(1), inputs)["params"]
    gradient = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, inputs) ** 3))(
        params
    )
    products = jnp.sum(gradient["direction"] * params["direction"], axis=(0, 1, 2))
    lengths = jnp.sqrt(jnp.sum(gradient["direction"] ** 2, axis=(0, 1, 2)))
    assert np.all(abs(products) < 1e-4 * lengths)


def stage_ratios(depth, seed, branch_factor=1.0):
    """Ratios of squared norms across each stage, forward (activations) and backward.

    Forward: mean over positions of the squared norm over channels. Backward: squared
    norm of the gradient with respect to all activations.

    Args:
        branch_factor: multiplies the lengths of each branch's last layer.
    """
    model = MODELS["resnet"](10, depth, "weight_norm")
    key = jax.random.key(seed)
    params = model.init(key, jnp.zeros((1, 16, 16, 3)))["params"]
    num_blocks = blocks_per_stage(depth)
    hidden = jax.random.normal(jax.random.fold_in(key, 1), (4, 16, 16, WIDTHS[0]))
    forward, pullbacks = [jnp.mean(jnp.sum(hidden**2, -1))], []
    for stage, features in enumerate(WIDTHS):
        for i in range(num_blocks):
            strides = 2 if stage > 0 and i == 0 else 1
            block = WeightNormBlock(features, strides, num_blocks)
            own = params[f"stage{stage + 1}_block{i + 1}"]
            length = own["conv2"]["length"] * branch_factor
            own = {**own, "conv2": {**own["conv2"], "length": length}}
            hidden, pullback = jax.vjp(
                lambda h, block=block, own=own: block.apply({"params": own}, h), hidden
            )
            forward.append(jnp.mean(jnp.sum(hidden**2, -1)))
            pullbacks.append(pullback)
    gradient = jax.random.normal(jax.random.fold_in(key, 2), hidden.shape)
    backward = [jnp.sum(gradient**2)]
    for pullback in reversed(pullbacks):
        (gradient,) = pullback(gradient)
        backward.append(jnp.sum(gradient**2))
    ends = np.arange(4) * num_blocks
    forward, backward = np.array(forward)[ends], np.array(backward[::-1])[ends]
    return forward[1:] / forward[:-1], backward[:-1] / backward[1:]


@pytest.mark.parametrize("depth", some([26, 56], [26]))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_arpit_norms_stay_within_a_factor_e_across_each_stage(depth, seed):
    forward, backward = stage_ratios(depth, seed)
    assert np.all((forward > 1) & (forward < np.e)), forward
    # On the way back the two shortcuts that double the channels halve the square.
    halved = np.array([1, 2, 2])
    assert np.all((backward * halved > 1) & (backward * halved < np.e)), backward


@pytest.mark.parametrize("depth", [26, 56])
def test_without_its_scaling_of_branches_norms_explode(depth):
    forward, backward = stage_ratios(depth, 0, np.sqrt(blocks_per_stage(depth)))
    assert np.all(forward > np.e)
    assert np.all(backward > np.e)
    # 2^b is expected of b blocks without padding.
    assert forward.max() > 2 ** (0.75 * blocks_per_stage(depth))
