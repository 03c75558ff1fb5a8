from pathlib import Path

import pytest

from fisher_jax.data import prepared
from fisher_jax.data.prepared import (
    default_data_dir,
    find_prepared,
    is_known,
    missing_error,
    resolve_data_dir,
)
from fisher_jax.errors import DataError


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for folder in (
        "plain/1.0.0",
        "plain/9.0.0",
        "plain/10.0.0",
        "plain/incomplete.ABC_11.0.0",
        "one/blurred/2.0.0",
        "many/blurred/1.0.0",
        "many/sharp_2/1.0.0",
        "empty",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "plain" / "20.0.0").write_text("no folder")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain", "plain/10.0.0"),
        ("plain:9.0.0", "plain/9.0.0"),
        ("plain:3.0.0", None),
        ("one", "one/blurred/2.0.0"),
        ("one:2.0.0", "one/blurred/2.0.0"),
        ("many/sharp_2", "many/sharp_2/1.0.0"),
        ("many/blurred:1.0.0", "many/blurred/1.0.0"),
        ("many/missing", None),
        ("empty", None),
        ("absent", None),
    ],
)
def test_find_prepared(data_dir, name, found):
    assert find_prepared(name, data_dir) == (found and data_dir / found)


def test_several_configurations_are_ambiguous(data_dir):
    with pytest.raises(DataError, match=r"name one of many/blurred, many/sharp_2$"):
        find_prepared("many", data_dir)


@pytest.mark.parametrize("name", ["", "../secret", "/root", "a b", "a:1", "a/b/c"])
def test_a_name_that_is_none(data_dir, name):
    with pytest.raises(DataError, match="is not a name of a data set"):
        find_prepared(name, data_dir)


def test_a_missing_folder_holds_nothing(tmp_path):
    assert find_prepared("plain", tmp_path / "absent") is None


def test_a_folder_that_may_not_be_read(public_dir, unprivileged):
    folder = public_dir / "plain"
    (folder / "1.0.0").mkdir(parents=True)
    folder.chmod(0)
    with unprivileged(), pytest.raises(DataError, match="cannot be read: Permission"):
        find_prepared("plain", public_dir)
    folder.chmod(0o755)
    assert find_prepared("plain", public_dir) == folder / "1.0.0"


def test_remedy_for_a_known_set(tmp_path):
    message = str(missing_error("cifar100", tmp_path))
    command = f"python -m fisher_jax.data.prepare cifar100 --data_dir={tmp_path}"
    assert message == f"cifar100 is not prepared in {tmp_path}; run: {command}"
    absent = tmp_path / "absent"
    assert f"{absent} (no such folder)" in str(missing_error("cifar100", absent))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifr10", "cifar10"), ("CIFAR100", "cifar100"), ("digit", "digits")],
)
def test_nearest_names(tmp_path, name, nearest):
    message = str(missing_error(name, tmp_path))
    assert f"dataset.name={name} is neither" in message
    assert nearest in message.split("the nearest are ")[1].split(", ")


def test_nearest_names_include_what_is_prepared(data_dir):
    assert "plain" in str(missing_error("plian", data_dir))
    assert "\n" not in str(missing_error("qqqqqqqq", data_dir))


@pytest.mark.parametrize("inside", ["plain", "plain/9.0.0"])
def test_data_dir_inside_the_set(data_dir, inside):
    message = str(missing_error("plain", data_dir / inside))
    assert message.endswith(f"use dataset.data_dir={data_dir}")


def test_default_data_dir(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/some/where")
    assert default_data_dir() == "/some/where"
    assert resolve_data_dir(None) == Path("/some/where")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_data_dir("") == Path("/home/someone/tensorflow_datasets")
    assert resolve_data_dir("~/sets") == Path("/home/someone/sets")


def test_remote_data_dir():
    with pytest.raises(DataError, match="gs://bucket is not a local folder"):
        resolve_data_dir("gs://bucket")


def test_known_names():
    names = ("cifar10", "cifar100:3.0.2", "imagenet2012", "cifar10_corrupted/fog_1")
    assert all(is_known(name) for name in names)
    assert not is_known("no_such_set")
    assert "mnist" in prepared._builder_names()
