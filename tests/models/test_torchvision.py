"""Forward passes against torchvision's, with the same weights.

Not in any of our environments: torch is large. To run these,

    python -m venv /tmp/tv && /tmp/tv/bin/pip install torch torchvision .[test]
    /tmp/tv/bin/python -m pytest -m slow -rs tests/models/test_torchvision.py
"""

import jax
import numpy as np
import pytest

from fisher_jax.models import MODELS
from fisher_jax.models.resnet import BatchNormBlock
from fisher_jax.models.weight_norm import RELU_GAIN, WeightNormConv
from tests.models.small import images, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def torch():
    pytest.importorskip(
        "torchvision",
        reason="NOT COMPARED with torchvision: it is not installed; the docstring of "
        "tests/models/test_torchvision.py says how",
    )
    return pytest.importorskip("torch")


def random(shape, seed=0, scale=1.0):
    draws = np.random.default_rng(seed).normal(0, scale, shape)
    return draws.astype(np.float32)


def copy(parameter, values):
    """Sets a torch parameter; convolutions HWIO -> OIHW, matrices transposed."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(np.ndim(values))
    values = np.array(values if order is None else np.transpose(values, order))
    assert tuple(parameter.shape) == values.shape
    parameter.data.copy_(parameter.data.new_tensor(values))


def channels_first(torch, inputs):
    return torch.tensor(np.array(np.transpose(inputs, (0, 3, 1, 2))))


def channels_last(outputs):
    return np.transpose(outputs.detach().numpy(), (0, 2, 3, 1))


def test_vgg11(torch):
    from torchvision.models import vgg11

    params, inputs = trained("vgg11")["params"], images("vgg11", 4)
    features = vgg11().features
    convolutions = [m for m in features if isinstance(m, torch.nn.Conv2d)]
    for i, layer in enumerate(convolutions):
        copy(layer.weight, params[f"Conv_{i}"]["kernel"])
        copy(layer.bias, params[f"Conv_{i}"]["bias"])
    hidden = features(channels_first(torch, inputs)).flatten(1)
    for i in range(3):
        kernel, bias = (params[f"Dense_{i}"][key] for key in ("kernel", "bias"))
        linear = torch.nn.Linear(*kernel.shape)
        copy(linear.weight, kernel)
        copy(linear.bias, bias)
        hidden = linear(torch.relu(hidden) if i else hidden)
    logits = MODELS["vgg11"](7).apply({"params": params}, inputs)
    np.testing.assert_allclose(logits, hidden.detach().numpy(), rtol=1e-4, atol=1e-4)


def basic_block(torch, variables, channels, features, strides):
    """torchvision's block with the weights of ours, its shortcut He's option A."""
    from torchvision.models.resnet import BasicBlock

    class OptionA(torch.nn.Module):
        def forward(self, inputs):
            padding = (0, 0, 0, 0, 0, features - channels)
            return torch.nn.functional.pad(inputs[:, :, ::strides, ::strides], padding)

    block = BasicBlock(channels, features, strides, downsample=OptionA())
    params, statistics = variables["params"], variables["batch_stats"]
    for i, (conv, norm) in enumerate(
        ((block.conv1, block.bn1), (block.conv2, block.bn2))
    ):
        copy(conv.weight, params[f"Conv_{i}"]["kernel"])
        copy(norm.weight, params[f"BatchNorm_{i}"]["scale"])
        copy(norm.bias, params[f"BatchNorm_{i}"]["bias"])
        copy(norm.running_mean, statistics[f"BatchNorm_{i}"]["mean"])
        copy(norm.running_var, statistics[f"BatchNorm_{i}"]["var"])
    return block


@pytest.mark.parametrize(("channels", "features", "strides"), [(8, 8, 1), (8, 16, 2)])
def test_basic_block(torch, channels, features, strides):
    ours = BatchNormBlock(features, strides)
    inputs = random((8, 10, 10, channels))
    initial = ours.init(jax.random.key(0), inputs, train=False)
    variables = jax.tree.map(lambda a: a + np.abs(random(a.shape, scale=0.1)), initial)
    theirs = basic_block(torch, variables, channels, features, strides)
    theirs.eval()
    np.testing.assert_allclose(
        ours.apply(variables, inputs, train=False),
        channels_last(theirs(channels_first(torch, inputs))),
        atol=1e-4,
    )
    theirs.train()
    outputs, changed = ours.apply(
        variables, inputs, train=True, mutable=["batch_stats"]
    )
    expected = channels_last(theirs(channels_first(torch, inputs)))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    size = outputs.size // features
    for i, norm in enumerate((theirs.bn1, theirs.bn2)):
        old = variables["batch_stats"][f"BatchNorm_{i}"]
        new = changed["batch_stats"][f"BatchNorm_{i}"]
        np.testing.assert_allclose(new["mean"], norm.running_mean, atol=1e-5)
        # PyTorch averages the unbiased variance of the batch, Flax the biased one.
        unbiased = 0.9 * old["var"] + (new["var"] - 0.9 * old["var"]) * size / (
            size - 1
        )
        np.testing.assert_allclose(unbiased, norm.running_var, rtol=1e-5)


def test_fixup_resnet18_is_resnet18_without_batch_norm(torch):
    from torchvision.models import resnet18

    ours, inputs = MODELS["fixup_resnet"](10), random((2, 64, 64, 3))
    params = jax.device_get(jax.jit(ours.init)(jax.random.key(0), inputs)["params"])
    # Scalars stay where they start, which is where batch norm's absence is exact.
    params = jax.tree.map(
        lambda a: a + random(a.shape, scale=0.02) if a.ndim else a, params
    )
    theirs = resnet18(num_classes=10, norm_layer=lambda _: torch.nn.Identity())
    copy(theirs.conv1.weight, params["stem"]["kernel"])
    copy(theirs.fc.weight, params["classifier"]["kernel"])
    copy(theirs.fc.bias, params["classifier"]["bias"])
    for stage in range(1, 5):
        for i, block in enumerate(getattr(theirs, f"layer{stage}"), 1):
            own = params[f"stage{stage}_block{i}"]
            copy(block.conv1.weight, own["conv1"]["kernel"])
            copy(block.conv2.weight, own["conv2"]["kernel"])
            assert ("shortcut" in own) == (block.downsample is not None)
            if "shortcut" in own:
                copy(block.downsample[0].weight, own["shortcut"]["kernel"])
    logits = jax.jit(ours.apply)({"params": params}, inputs)
    expected = theirs(channels_first(torch, inputs)).detach().numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("strides", [1, 2])
def test_weight_normalised_convolution(torch, strides):
    from torch.nn.utils.parametrizations import weight_norm

    ours, inputs = WeightNormConv(6, 3, RELU_GAIN, strides), random((2, 9, 9, 5))
    params = ours.init(jax.random.key(0), inputs)["params"]
    params = jax.tree.map(lambda a: a + random(a.shape, scale=0.1), params)
    theirs = weight_norm(torch.nn.Conv2d(5, 6, 3, strides, padding=1))
    weight = theirs.parametrizations.weight
    copy(weight.original0.view(6), params["length"])
    copy(weight.original1, params["direction"])
    copy(theirs.bias, params["bias"])
    np.testing.assert_allclose(
        ours.apply({"params": params}, inputs),
        channels_last(theirs(channels_first(torch, inputs))),
        atol=1e-5,
    )
