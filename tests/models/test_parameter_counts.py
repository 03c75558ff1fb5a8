"""Numbers of parameters: published ones, and our docstrings'. Shapes only, no work."""

import jax
import jax.numpy as jnp
import pytest

from fisher_jax.models import MODELS


def count(name, shape, num_classes, **keys):
    model = MODELS[name](num_classes=num_classes, **keys)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), example)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


SMALL_IMAGE = (32, 32, 3)

# What the docstrings say.
EXACT = [
    ("vgg11", 10, {}, 9_750_922),
    ("vgg11", 100, {}, 9_797_092),
    ("densenet", 10, {}, 1_019_722),
    ("densenet", 100, {}, 1_060_132),
    ("wide_resnet", 10, {}, 5_910_810),
    ("wide_resnet", 100, {}, 5_928_180),
    ("wide_resnet", 200, {}, 5_947_480),
    ("wide_resnet", 10, {"normalisation": "skip_init"}, 5_906_447),
    ("wide_resnet", 100, {"normalisation": "skip_init"}, 5_923_817),
    ("wide_resnet", 200, {"normalisation": "skip_init"}, 5_943_117),
    ("resnet", 10, {}, 366_938),
    ("resnet", 100, {}, 372_788),
    ("resnet", 10, {"depth": 56}, 853_018),
    ("resnet", 100, {"depth": 56}, 858_868),
    ("resnet", 10, {"normalisation": "weight_norm"}, 369_690),
    ("resnet", 100, {"normalisation": "weight_norm"}, 375_540),
    ("resnet", 10, {"depth": 56, "normalisation": "weight_norm"}, 855_770),
    ("resnet", 100, {"depth": 56, "normalisation": "weight_norm"}, 861_620),
]


@pytest.mark.parametrize(("name", "num_classes", "keys", "expected"), EXACT)
def test_count_is_the_docstring_s(name, num_classes, keys, expected):
    assert count(name, SMALL_IMAGE, num_classes, **keys) == expected
    assert f"{expected:,}" in MODELS[name].__doc__


# In millions, with as many digits as were printed.
PUBLISHED = [
    # He et al. 2016, table 6, CIFAR-10.
    ("resnet", {"depth": 20}, "0.27"),
    ("resnet", {"depth": 32}, "0.46"),
    ("resnet", {"depth": 44}, "0.66"),
    ("resnet", {"depth": 56}, "0.85"),
    ("resnet", {"depth": 110}, "1.7"),
    # Huang et al. 2017, table 2: L = 40 and 100, k = 12 and 24.
    ("densenet", {}, "1.0"),
    ("densenet", {"depth": 100}, "7.0"),
    ("densenet", {"depth": 100, "growth_rate": 24}, "27.2"),
    # Zagoruyko and Komodakis 2016, tables 4 and 5; their 40 is 6 n + 4, our 38.
    ("wide_resnet", {"depth": 38, "width": 1}, "0.6"),
    ("wide_resnet", {"depth": 38, "width": 2}, "2.2"),
    ("wide_resnet", {"depth": 38, "width": 4}, "8.9"),
    ("wide_resnet", {"depth": 14, "width": 8}, "11.0"),
    ("wide_resnet", {"depth": 26, "width": 10}, "36.5"),
]


@pytest.mark.parametrize(("name", "keys", "millions"), PUBLISHED)
def test_count_rounds_to_the_published_one(name, keys, millions):
    digits = len(millions.partition(".")[2])
    assert f"{count(name, SMALL_IMAGE, 10, **keys) / 1e6:.{digits}f}" == millions


def test_fixup_resnet18_counts_as_torchvision_s_without_batch_norm():
    torchvision, batch_norm, scalars = 11_689_512, 9_600, 8 * 5 + 2
    expected = torchvision - batch_norm + scalars
    assert count("fixup_resnet", (224, 224, 3), 1000) == expected == 11_679_954
    assert abs(expected - 11.69e6) < 0.01 * 11.69e6
    assert f"{expected:,}" in MODELS["fixup_resnet"].__doc__


def test_vgg11_counts_as_torchvision_s_features_and_its_head():
    features, head = 9_220_480, 2 * (512 * 512 + 512)
    assert count("vgg11", SMALL_IMAGE, 100) == features + head + 512 * 100 + 100


def wide_resnet_by_hand(width, blocks, num_classes, biases, scalars, batch_norm):
    """Counts layer by layer: 2 per normalised channel, scalars per block."""
    total = 9 * 3 * 16 + biases * 16
    channels = 16
    for features in (16 * width, 32 * width, 64 * width):
        for _ in range(blocks):
            total += 9 * channels * features + 9 * features * features + scalars
            total += 2 * biases * features + 2 * batch_norm * (channels + features)
            if channels != features:
                total += channels * features + biases * features
            channels = features
    return total + 2 * batch_norm * channels + (channels + 1) * num_classes


def test_wide_resnet_44_3_counts_as_by_hand():
    with_batch_norm = wide_resnet_by_hand(3, 7, 200, 0, 0, 1)
    with_skip_init = wide_resnet_by_hand(3, 7, 100, 1, 1, 0)
    assert count("wide_resnet", SMALL_IMAGE, 200) == with_batch_norm
    skip_init = count("wide_resnet", SMALL_IMAGE, 100, normalisation="skip_init")
    assert skip_init == with_skip_init


def test_every_model_takes_what_a_run_gives_it():
    for name, model in MODELS.items():
        assert {"num_classes", "dtype"} <= set(model.__dataclass_fields__), name
