import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.synthetic_images import (
    image_feature,
    label_feature,
    photograph,
    write_description,
    write_set,
)
from fisher_jax.data import prepare as prepare_module
from fisher_jax.data.crops import crop_pixels
from fisher_jax.data.prepare import main, prepare
from fisher_jax.data.sources import find_stream, load_source
from fisher_jax.data.stream import read_images, split_size
from fisher_jax.errors import DataError
from tests.data.archives import write_cifar, write_imagenet

ROOT = Path(__file__).parents[2]
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fisher_jax.data.prepare", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed here")
def test_missing_tensorflow(tmp_path):
    process = run("cifar100", f"--data_dir={tmp_path}")
    assert process.returncode == 2
    message = "preparing cifar100 needs TensorFlow: "
    message += "pip install -e '.[prepare]' in a clone\n"
    assert process.stderr == message
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_name(tmp_path):
    process = run("cifr100", f"--data_dir={tmp_path}")
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "the nearest are cifar100" in process.stderr


def test_already_prepared(tmp_path):
    write_set(tmp_path)
    process = run("tiny", f"--data_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(
        f"tiny is already prepared in {tmp_path / 'tiny' / '1.0.0'}\n"
    )
    assert f"--config.dataset.data_dir={tmp_path}" in process.stdout
    assert process.stderr == ""


def test_prepared_in_another_format(tmp_path):
    folder = tmp_path / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    features = {"image": image_feature((4, 4, 3)), "label": label_feature(5)}
    write_description(folder, "tiny", {"train": [[b""]]}, features, "tfrecord")
    with pytest.raises(DataError, match=f"{folder} has tiny as tfrecord files"):
        prepare("tiny", tmp_path)


def test_digits_need_no_preparing(tmp_path, capsys):
    assert main(["digits", f"--data_dir={tmp_path}"]) == 2
    assert "digits comes with scikit-learn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar10", "--data_dir=gs://bucket"], "gs://bucket is not a local folder"),
        (["cifar10", "--manual_dir=/absent"], "--manual_dir=/absent is not a folder"),
        (["../cifar10"], "is not a name of a data set"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.fixture
def pretended_tensorflow(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        prepare_module.importlib.util,
        "find_spec",
        lambda name: object() if name == "tensorflow" else real(name),
    )


@pytest.mark.usefixtures("pretended_tensorflow")
def test_a_failed_download_names_the_archive_and_where_it_may_be(
    tmp_path, monkeypatch, capsys
):
    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    builder = tfds.image_classification.Cifar100
    monkeypatch.setattr(builder, "download_and_prepare", fail)
    assert main(["cifar100", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "preparing cifar100 failed: ConnectionError: no route to host" in message
    assert str(tmp_path / "downloads" / "manual") in message
    assert "cifar-100-binary.tar.gz (https://www.cs.toronto.edu/" in message
    main(["cifar100", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"])
    assert f"are taken from {tmp_path} (" in capsys.readouterr().err


@pytest.mark.usefixtures("pretended_tensorflow")
def test_an_unknown_version_or_configuration_is_one_line(tmp_path, capsys):
    for name in ("cifar10:0.0.7", "cifar10_corrupted/nothing"):
        assert main([name, f"--data_dir={tmp_path}"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"preparing {name} failed: ")
        assert message.count("\n") == 1


@pytest.mark.usefixtures("pretended_tensorflow")
def test_interrupted(tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    builder = tfds.image_classification.Cifar100
    monkeypatch.setattr(builder, "download_and_prepare", interrupt)
    assert main(["cifar100", f"--data_dir={tmp_path}"]) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err


# --- A real preparation ---------------------------------------------------------------


def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return sorted(
        image.tobytes() + bytes([label])
        for image, label in zip(images, labels, strict=True)
    )


needs_tensorflow = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="SKIPPED LOUDLY: preparing for real needs TensorFlow"
)


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "num_classes", "file", "builder"),
    [
        ("cifar10", 10, "cifar-10-binary.tar.gz", tfds.image_classification.Cifar10),
        (
            "cifar100",
            100,
            "cifar-100-binary.tar.gz",
            tfds.image_classification.Cifar100,
        ),
    ],
)
def test_prepared_for_real_from_an_archive(
    tmp_path, monkeypatch, capsys, name, num_classes, file, builder
):
    """The whole way, from the official layout to arrays; only the checksum is ours."""
    manual_dir, data_dir = tmp_path / "archives", tmp_path / "data"
    manual_dir.mkdir()
    written = write_cifar(manual_dir / file, num_classes)
    url_info = tfds.core.download.checksums.compute_url_info(manual_dir / file)
    url = f"https://www.cs.toronto.edu/~kriz/{file}"
    assert url in builder.url_infos
    monkeypatch.setattr(builder, "url_infos", {url: url_info})
    arguments = [name, f"--data_dir={data_dir}", f"--manual_dir={manual_dir}"]
    assert main(arguments) == 0
    assert f"{name} is prepared in {data_dir}/{name}/" in capsys.readouterr().out
    source = load_source(name, str(data_dir), str(tmp_path / "cache"))
    assert source.num_classes == num_classes
    assert rows(*source.train) == rows(*written["train"])
    assert rows(*source.test) == rows(*written["test"])
    assert source.label_names[3] == "class 3"
    assert main(arguments) == 0
    assert "already prepared" in capsys.readouterr().out


@needs_tensorflow
def test_an_archive_with_another_checksum(tmp_path, capsys):
    write_cifar(tmp_path / "cifar-10-binary.tar.gz", 10)
    arguments = ["cifar10", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"]
    assert main(arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "NonMatchingChecksumError" in message
    assert "cifar-10-binary.tar.gz, has wrong checksum" in message
    assert not list(tmp_path.glob("cifar10/3*"))


@needs_tensorflow
def test_imagenet_prepared_for_real_is_streamed(tmp_path):
    """From its three official archives; the labels of the test split are secret."""
    pytest.importorskip("grain", reason="SKIPPED LOUDLY: streaming needs grain")
    generator = np.random.default_rng(0)
    images = {
        split: [photograph(generator, 60 + i, 50) for i in range(size)]
        for split, size in (("train", 7), ("val", 5), ("test", 3))
    }
    write_imagenet(tmp_path, images)
    arguments = [f"--data_dir={tmp_path / 'data'}", f"--manual_dir={tmp_path}"]
    assert main(["imagenet2012", *arguments]) == 0
    stream = find_stream("imagenet2012", str(tmp_path / "data"))
    assert (split_size(stream.train), split_size(stream.test)) == (7, 5)
    assert stream.num_classes == 1000
    assert stream.label_names[:2] == ("n01440764", "n01443537")
    train = read_images(stream.train, np.arange(7))
    assert train.images.shape == (7, 224, 224, 3)
    assert sorted(train.labels.tolist()) == [0, 0, 0, 0, 1, 1, 1]
    validation = read_images(stream.test, np.arange(5))
    expected = [
        crop_pixels(Image.open(io.BytesIO(image)), "none", None, resize=256, crop=224)
        for image in images["val"]
    ]
    assert sorted(image.tobytes() for image in validation.images) == sorted(
        image.tobytes() for image in expected
    )


@needs_tensorflow
def test_imagenet_without_its_archives(tmp_path, capsys):
    assert main(["imagenet2012", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("preparing imagenet2012 failed: AssertionError: Manual")
    assert str(tmp_path / "downloads" / "manual") in message
    assert "ILSVRC2012_img_train.tar" in message
