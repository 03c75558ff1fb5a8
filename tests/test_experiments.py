"""The settings' files: their variants, and three real steps of each."""

import json
from pathlib import Path

import pytest

from benchmarks.synthetic_images import write_photographs, write_set
from fisher_jax.train.config import load_config
from tests.command import records, run

FOLDER = Path(__file__).parents[1] / "experiments"


SETTINGS = (
    "tinyimagenet_fp",
    "cifar100_densenet_fp",
    "cifar100_vgg11_fp",
    "cifar100_wresnet_fp",
    "cifar10_simplecnn_fp",
    "imagenet_resnet18_fixup",
)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variant_is_valid_and_described(name):
    module = __import__(f"experiments.{name}", fromlist=["VARIANTS"])
    for variant in module.VARIANTS:
        load_config(f"{FOLDER / name}.py:{variant}")
        assert variant in module.__doc__


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Every set of the paper in TFDS's layout, 36 training images of each."""
    folder = tmp_path_factory.mktemp("data")
    sizes = {"train": (20, 16), "test": (10,)}
    for name, version, classes in (
        ("cifar10", "3.0.2", 10),
        ("cifar100", "3.0.2", 100),
        ("tiny_imagenet", "32x32/1.0.0", 200),
    ):
        write_set(
            folder,
            name=name,
            version=version,
            shape=(32, 32, 3),
            sizes=sizes,
            num_classes=classes,
            image_format="JPEG",
        )
    write_photographs(folder, 36, 2, 8, name="imagenet2012", num_classes=1000)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_three_real_steps(name, data_dir, tmp_path):
    """The real network with FP, Tr(F) and Tr(H), in batches of 12."""
    code, output = run(
        f"--config={FOLDER / name}.py",
        f"--workdir={tmp_path}/run",
        f"--config.dataset.data_dir={data_dir}",
        "--config.dataset.num_validation=0",
        "--config.train.batch_size=12",
        "--config.train.num_epochs=1",
        # On random pixels VGG-11 diverges within three steps at its own rate.
        "--config.optimizer.learning_rate=1e-4",
        "--config.penalty.name=fisher",
        "--config.penalty.coefficient=0.01",
        "--config.penalty.update_every=2",
        "--config.measure.fisher_examples=4",
        "--config.measure.chunk_size=4",
        "--config.measure.hessian_probes=2",
        "--config.measure.hessian_examples=4",
        "--config.measure.batch_size=12",
        timeout=3000,
        environment={"FISHER_JAX_CACHE_DIR": str(tmp_path)},
    )
    assert code == 0, output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training_examples"] == 36
    first, last = records(tmp_path / "run")
    assert last["step"] == 3
    for row in (first, last):
        for trace in ("trace/fisher", "trace/hessian"):
            assert isinstance(row[trace], float)
        assert row["trace/fisher"] > 0
    assert last["penalty/value"] > 0
    assert last["train/loss"] != first["train/loss"]
