"""Shapes layer by layer, at the sizes of the paper; and what is refused."""

import jax
import jax.numpy as jnp
import pytest

from fisher_jax.models import MODELS


def layer_shapes(name, shape, num_classes=10, **keys):
    """Returns {layer name: output shape} of one example, outermost layers only."""
    model = MODELS[name](num_classes=num_classes, **keys)
    example = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), example)
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True), variables, example
    )
    outputs = state["intermediates"]
    assert outputs["__call__"][0].shape == (2, num_classes)
    assert all(
        set(out) >= {"__call__"} for key, out in outputs.items() if key != "__call__"
    )
    return {
        key: out["__call__"][0].shape[1:]
        for key, out in outputs.items()
        if key != "__call__"
    }


def test_vgg11():
    shapes = layer_shapes("vgg11", (32, 32, 3))
    convolutions = [shapes[f"Conv_{i}"] for i in range(8)]
    assert convolutions == [
        (32, 32, 64),
        (16, 16, 128),
        (8, 8, 256),
        (8, 8, 256),
        (4, 4, 512),
        (4, 4, 512),
        (2, 2, 512),
        (2, 2, 512),
    ]
    assert [shapes[f"Dense_{i}"] for i in range(3)] == [(512,), (512,), (10,)]


def test_densenet():
    shapes = layer_shapes("densenet", (32, 32, 3))
    assert shapes["stem"] == (32, 32, 16)
    for block, size in ((1, 32), (2, 16), (3, 8)):
        for layer in range(1, 13):
            assert shapes[f"block{block}_layer{layer}"] == (size, size, 12)
    assert "block1_layer13" not in shapes
    # 16 + 12 * 12 = 160 channels leave the first block, 304 the second, 448 the third.
    assert shapes["transition1"] == (32, 32, 160)
    assert shapes["transition2"] == (16, 16, 304)
    assert shapes["BatchNorm_0"] == (8, 8, 448)


@pytest.mark.parametrize("normalisation", ["batch_norm", "skip_init"])
def test_wide_resnet(normalisation):
    shapes = layer_shapes("wide_resnet", (32, 32, 3), normalisation=normalisation)
    assert shapes["stem"] == (32, 32, 16)
    for stage, shape in ((1, (32, 32, 48)), (2, (16, 16, 96)), (3, (8, 8, 192))):
        for block in range(1, 8):
            assert shapes[f"stage{stage}_block{block}"] == shape
        assert f"stage{stage}_block8" not in shapes


@pytest.mark.parametrize("normalisation", ["batch_norm", "weight_norm"])
@pytest.mark.parametrize(("depth", "blocks"), [(26, 4), (56, 9)])
def test_resnet(normalisation, depth, blocks):
    shapes = layer_shapes(
        "resnet", (32, 32, 3), depth=depth, normalisation=normalisation
    )
    assert shapes["stem"] == (32, 32, 16)
    for stage, shape in ((1, (32, 32, 16)), (2, (16, 16, 32)), (3, (8, 8, 64))):
        for block in range(1, blocks + 1):
            assert shapes[f"stage{stage}_block{block}"] == shape
        assert f"stage{stage}_block{blocks + 1}" not in shapes


def test_fixup_resnet():
    shapes = layer_shapes("fixup_resnet", (224, 224, 3), 1000)
    assert shapes["stem"] == (112, 112, 64)
    for stage, (size, features) in enumerate(
        ((56, 64), (28, 128), (14, 256), (7, 512)), 1
    ):
        for block in (1, 2):
            assert shapes[f"stage{stage}_block{block}"] == (size, size, features)
    assert shapes["classifier_bias"] == (512,)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["densenet", "wide_resnet", "resnet"])
def test_the_digits_fit(name, channels):
    layer_shapes(name, (8, 8, channels))


@pytest.mark.parametrize(
    ("name", "keys", "size", "message"),
    [
        ("vgg11", {}, 28, "28x28 pixels are too small"),
        ("densenet", {"depth": 41}, 32, "depth must be 3 n .* got 41"),
        ("densenet", {"depth": 4}, 32, "depth must be 3 n .* got 4"),
        ("wide_resnet", {"depth": 40}, 32, "depth must be 6 n .* got 40"),
        ("resnet", {"depth": 2}, 32, "depth must be 6 n .* got 2"),
        ("resnet", {"normalisation": "skip_init"}, 32, "is not one of batch_norm, w"),
        ("wide_resnet", {"normalisation": "weight_norm"}, 32, "batch_norm, skip_init"),
    ],
)
def test_what_is_refused(name, keys, size, message):
    with pytest.raises(ValueError, match=message):
        layer_shapes(name, (size, size, 3), **keys)
