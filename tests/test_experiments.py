"""The settings' files: the paper's hyper-parameters, and three real steps of each."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fisher_jax.train.config import flat_config, load_config
from tests.command import records, run
from tests.data.conftest import write_set
from tests.data.photographs import write_photographs

FOLDER = Path(__file__).parents[1] / "experiments"


class Setting(NamedTuple):
    """Section 3 of the paper, as it states it."""

    dataset: str
    model: dict[str, Any]
    weight_decay: float
    decay_epochs: list[int]
    num_validation: int = 5000
    augment: str = "none"
    epochs: int = 300
    batch_size: int = 128
    fisher_examples: int = 128
    reestimate: int = 0
    variants: frozenset[str] = frozenset(
        ("eta_star", "baseline", "gp_x", "gp", "fp", "gp_r", "rfp")
    )
    default_penalty: str = "fisher"


TABLE_2 = frozenset(("eta_star_augmented", "fp_augmented"))
IN_THREE_PARTS = [150, 225]
SETTINGS = {
    "tinyimagenet_fp": Setting(
        "tiny_imagenet",
        {"name": "wide_resnet", "depth": 44, "width": 3, "normalisation": "batch_norm"},
        1e-4,
        IN_THREE_PARTS,
        num_validation=0,
        augment="standard",
        reestimate=100,
    ),
    "cifar100_densenet_fp": Setting(
        "cifar100",
        {"name": "densenet", "depth": 40, "growth_rate": 12},
        1e-4,
        IN_THREE_PARTS,
        reestimate=100,
    ),
    "cifar100_vgg11_fp": Setting(
        "cifar100", {"name": "vgg11"}, 1e-4, [80, 120, 160, 200, 240, 280]
    ),
    "cifar100_wresnet_fp": Setting(
        "cifar100",
        {"name": "wide_resnet", "depth": 44, "width": 3, "normalisation": "skip_init"},
        1e-3,
        IN_THREE_PARTS,
    ),
    "cifar10_simplecnn_fp": Setting(
        "cifar10", {"name": "simple_cnn"}, 0.0, IN_THREE_PARTS
    ),
    "imagenet_resnet18_fixup": Setting(
        "imagenet2012",
        {"name": "fixup_resnet"},
        1e-4,
        [29],
        num_validation=0,
        epochs=50,
        batch_size=256,
        fisher_examples=2500,
        variants=frozenset(("eta_0.1", "eta_0.01", "eta_0.001")),
        default_penalty="none",
    ),
}


def loaded(name: str, variant: str = "") -> dict[str, Any]:
    return flat_config(load_config(f"{FOLDER / name}.py:{variant}".rstrip(":")))


@pytest.mark.parametrize("name", SETTINGS)
def test_hyper_parameters_are_the_papers(name):
    setting, config = SETTINGS[name], loaded(name)
    model = {k.split(".")[1]: v for k, v in config.items() if k.startswith("model.")}
    assert model.pop("compute_dtype") == "float32"
    assert {k: v for k, v in model.items() if v is not None} == setting.model
    assert config["dataset.name"] == setting.dataset
    assert config["dataset.num_validation"] == setting.num_validation
    assert config["dataset.num_train"] is None
    assert config["dataset.augment"] == setting.augment
    assert config["dataset.label_noise"] == 0
    assert config["optimizer.momentum"] == 0.9
    assert config["optimizer.weight_decay"] == setting.weight_decay
    assert config["optimizer.decay_epochs"] == setting.decay_epochs
    assert config["optimizer.decay_factor"] == 0.1
    assert config["train.num_epochs"] == setting.epochs
    assert config["train.batch_size"] == setting.batch_size
    assert config["penalty.name"] == setting.default_penalty
    assert config["penalty.update_every"] == 10
    assert config["penalty.draw"] == "labels"
    assert config["penalty.num_examples"] is None
    assert config["penalty.batch_norm"] == "train"
    assert config["measure.fisher_examples"] == setting.fisher_examples
    assert config["measure.fisher_draw"] == "labels"
    assert config["measure.fisher_estimator"] == "per_example"
    assert config["eval.reestimate_batch_norm"] == setting.reestimate


@pytest.mark.parametrize("name", SETTINGS)
def test_variants(name):
    module = __import__(f"experiments.{name}", fromlist=["VARIANTS"])
    assert SETTINGS[name].variants <= module.VARIANTS.keys()
    if name.startswith("cifar"):
        assert module.VARIANTS.keys() >= TABLE_2
    for variant in module.VARIANTS:
        load_config(f"{FOLDER / name}.py:{variant}")
        assert variant in module.__doc__


PENALTIES = {
    "eta_star": "none",
    "baseline": "none",
    "gp_x": "input_gradient",
    "gp": "gradient",
    "fp": "fisher",
    "gp_r": "random_label",
    "rfp": "fisher",
}


@pytest.mark.parametrize(
    "name", [name for name in SETTINGS if name != "imagenet_resnet18_fixup"]
)
def test_columns_of_table_1(name):
    """All but eta* train at the baseline's rate and differ in their penalty alone."""
    configs = {variant: loaded(name, variant) for variant in PENALTIES}
    best = configs["eta_star"]["optimizer.learning_rate"]
    slow = configs["baseline"]["optimizer.learning_rate"]
    if name == "tinyimagenet_fp":
        assert (best, slow) == (0.0316, 0.001)
    else:
        # Five log-spaced values in [1e-2, 1e0].
        grid = [10 ** (-2 + i / 2) for i in range(5)]
        assert min(abs(best / value - 1) for value in grid) < 1e-3
        assert slow == best / 10
    for variant, penalty in PENALTIES.items():
        config = configs[variant]
        assert config["penalty.name"] == penalty
        assert (config["penalty.coefficient"] > 0) == (penalty != "none")
        changed = {k for k in config if config[k] != configs["baseline"][k]}
        allowed = {"penalty.name", "penalty.coefficient", "penalty.draw"}
        if variant == "eta_star":
            allowed = {"optimizer.learning_rate"}
        assert changed <= allowed
    for variant in ("fp", "gp", "gp_r"):
        # The centre of the grid of 10 log-spaced values in [0.1 v, 10 v], v = 0.01.
        assert configs[variant]["penalty.coefficient"] == 0.01
    assert configs["rfp"]["penalty.draw"] == "rademacher"


@pytest.mark.parametrize("name", [name for name in SETTINGS if "cifar" in name])
def test_columns_of_table_2(name):
    best = loaded(name, "eta_star")
    augmented = loaded(name, "eta_star_augmented")
    assert {k for k in best if best[k] != augmented[k]} == {"dataset.augment"}
    assert augmented["dataset.augment"] == "standard"
    fp = loaded(name, "fp_augmented")
    assert {k for k in best if fp[k] != augmented[k]} == {
        "penalty.name",
        "penalty.coefficient",
    }


def test_imagenet_is_read_as_the_paper_does():
    config = loaded("imagenet_resnet18_fixup")
    assert config["dataset.resize_size"] == 256
    assert config["dataset.crop_size"] == 224
    assert config["measure.early_loss"] == 3.5
    rates = [
        loaded("imagenet_resnet18_fixup", f"eta_{rate}")["optimizer.learning_rate"]
        for rate in ("0.001", "0.01", "0.1")
    ]
    assert rates == [0.001, 0.01, 0.1]


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
