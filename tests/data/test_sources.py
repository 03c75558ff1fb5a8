import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_images import write_set
from fisher_jax.data import sources
from fisher_jax.data.packaged import PACKAGED
from fisher_jax.data.sources import load_source
from fisher_jax.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def num_decoded(monkeypatch) -> list[str]:
    """Names of the sets that were decoded so far, in order."""
    names = []

    def counted(name, *rest):
        names.append(name)
        return read_prepared(name, *rest)

    read_prepared = sources.read_prepared
    monkeypatch.setattr(sources, "read_prepared", counted)
    return names


def load(tmp_path: Path, name: str = "tiny"):
    return load_source(name, str(tmp_path), str(tmp_path / "cache"))


def test_digits_need_no_folder_and_scikit_learn_only_once(monkeypatch, tmp_path):
    """Importing its data sets takes a second of every start."""
    first = load_source("digits", "/absent", str(tmp_path))
    assert first.train.images.shape == (1000, 8, 8, 1)
    monkeypatch.setitem(PACKAGED, "digits", (pytest.fail, "scikit-learn"))
    second = load_source("digits", "/absent", str(tmp_path))
    np.testing.assert_array_equal(second.train.images, first.train.images)
    np.testing.assert_array_equal(second.test.labels, first.test.labels)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"")
    monkeypatch.undo()
    third = load_source("digits", "/absent", str(tmp_path))
    np.testing.assert_array_equal(third.test.images, first.test.images)


def test_only_the_first_load_decodes(tmp_path, num_decoded):
    written = write_set(tmp_path)
    first, second = load(tmp_path), load(tmp_path)
    assert num_decoded == ["tiny"]
    for source in (first, second):
        np.testing.assert_array_equal(source.train.images, written["train"][0])
        np.testing.assert_array_equal(source.test.labels, written["test"][1])
    assert first._replace(train=None, test=None) == second._replace(
        train=None, test=None
    )


def test_a_damaged_cache_is_made_again_with_one_warning(tmp_path, num_decoded, caplog):
    written = write_set(tmp_path)
    load(tmp_path)
    (path,) = (tmp_path / "cache").iterdir()
    sound = path.read_bytes()
    path.write_bytes(sound[:-10])
    source = load(tmp_path)
    np.testing.assert_array_equal(source.train.images, written["train"][0])
    assert num_decoded == ["tiny", "tiny"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert path.read_bytes() == sound
    load(tmp_path)
    assert len(num_decoded) == 2
    assert len(caplog.records) == 1


def test_a_changed_set_is_decoded_again(tmp_path, num_decoded):
    write_set(tmp_path)
    load(tmp_path)
    (tmp_path / "tiny" / "1.0.0" / "label.labels.txt").write_text("a\nb\nc\nd\ne\n")
    assert load(tmp_path).label_names == ("a", "b", "c", "d", "e")
    assert len(num_decoded) == 2


def test_damage_is_found_where_a_cache_of_the_sound_set_exists(tmp_path):
    write_set(tmp_path)
    load(tmp_path)
    path = tmp_path / "tiny/1.0.0/tiny-test.array_record-00000-of-00001"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=str(path)):
        load(tmp_path)


def test_a_link_to_nowhere(tmp_path):
    write_set(tmp_path)
    path = tmp_path / "tiny/1.0.0/tiny-test.array_record-00000-of-00001"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{path} is missing"):
        load(tmp_path)


def test_without_a_writable_cache_it_decodes_every_time(tmp_path, num_decoded, caplog):
    write_set(tmp_path)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for _ in range(2):
        source = load_source("tiny", str(tmp_path), str(in_the_way / "cache"))
        assert len(source.train.labels) == 12
    assert len(num_decoded) == 2
    assert len(caplog.records) == 2


def test_the_cache_folder_is_taken_from_the_environment(tmp_path, monkeypatch):
    write_set(tmp_path)
    monkeypatch.setenv("FISHER_JAX_CACHE_DIR", str(tmp_path / "cache"))
    load_source("tiny", str(tmp_path))
    assert len(list((tmp_path / "cache" / "data").iterdir())) == 1


def test_the_highest_version_is_taken_and_any_can_be_named(tmp_path):
    for version, length in (("1.0.0", 3), ("1.10.0", 4), ("1.9.0", 5)):
        sizes = {"train": (length,), "test": (2,)}
        write_set(tmp_path, version=version, sizes=sizes)
    assert len(load(tmp_path).train.labels) == 4
    assert len(load(tmp_path, "tiny:1.9.0").train.labels) == 5


def test_missing_and_unknown_sets(tmp_path):
    with pytest.raises(DataError, match=r"cifar100 is not prepared in .*; run: python"):
        load(tmp_path, "cifar100")
    with pytest.raises(DataError, match=r"the nearest are .*cifar10"):
        load(tmp_path, "cifar_10")


def test_progress_reaches_the_end(tmp_path):
    write_set(tmp_path)
    calls = []
    load_source(
        "tiny",
        str(tmp_path),
        str(tmp_path / "cache"),
        progress=lambda *counts: calls.append(counts),
    )
    assert calls[-1] == (18, 18)


_LOAD = """
import json, sys
from fisher_jax.data.sources import load_source
source = load_source(sys.argv[1], sys.argv[2], sys.argv[3])
print(json.dumps({
    "modules": sorted(sys.modules),
    "sum": int(source.train.images.sum()),
    "shape": source.train.images.shape,
}))
"""


def load_in_new_process(name: str, data_dir: Path, cache_dir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _LOAD, name, str(data_dir), str(cache_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def outcome(process: subprocess.Popen) -> dict:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors == ""
    return json.loads(output)


def test_processes_that_start_together(tmp_path):
    write_set(tmp_path, sizes={"train": (3000,), "test": (10,)})
    cache_dir = tmp_path / "cache"
    processes = [load_in_new_process("tiny", tmp_path, cache_dir) for _ in range(3)]
    outcomes = [outcome(process) for process in processes]
    assert len({result["sum"] for result in outcomes}) == 1
    assert len(list(cache_dir.iterdir())) == 1


def test_cifar10_second_start(cifar10_data_dir, tmp_path):
    """The real set: decoded once, then read without anything that decodes."""
    first = outcome(load_in_new_process("cifar10", cifar10_data_dir, tmp_path))
    second = outcome(load_in_new_process("cifar10", cifar10_data_dir, tmp_path))
    assert first["sum"] == second["sum"]
    assert second["shape"] == [50000, 32, 32, 3]
    heavy = {"tensorflow_datasets", "PIL.Image", "sklearn", "jax", "flax"}
    assert not heavy & set(second["modules"])
