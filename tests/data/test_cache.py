import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from fisher_jax.data.cache import (
    cache_path,
    default_cache_dir,
    read_cache,
    write_cache,
)
from fisher_jax.data.image_set import ImageSet, Source


def make_source(seed: int = 0, num_train: int = 11) -> Source:
    generator = np.random.default_rng(seed)

    def split(size: int) -> ImageSet:
        images = generator.integers(0, 256, (size, 3, 5, 1), dtype=np.uint8)
        return ImageSet(images, generator.integers(0, 4, size).astype(np.int32))

    names = ("cat", "dog", "größer", "a b")
    return Source("some/set", split(num_train), split(7), 4, names)


def assert_equal(result: Source | None, expected: Source) -> None:
    assert result is not None
    assert result[0] == expected[0]
    assert result[3:] == expected[3:]
    for split, expected_split in zip(result[1:3], expected[1:3], strict=True):
        for array, expected_array in zip(split, expected_split, strict=True):
            assert array.dtype == expected_array.dtype
            np.testing.assert_array_equal(array, expected_array)


def test_what_is_written_is_read(tmp_path):
    source = make_source()
    write_cache(tmp_path / "new" / "folder" / "file", source)
    result = read_cache(tmp_path / "new" / "folder" / "file")
    assert_equal(result, source)
    assert not any(array.flags.writeable for array in [*result.train, *result.test])
    assert all(array.flags.aligned for array in [*result.train, *result.test])
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["file"]


def test_arrays_that_are_not_contiguous(tmp_path):
    source = make_source()
    images = np.asfortranarray(source.train.images)[:, ::-1]
    source = source._replace(train=ImageSet(images, source.train.labels))
    write_cache(tmp_path / "file", source)
    assert_equal(read_cache(tmp_path / "file"), source)


def test_no_file(tmp_path, caplog):
    assert read_cache(tmp_path / "absent") is None
    (tmp_path / "file").write_text("")
    assert read_cache(tmp_path / "file" / "below") is None
    assert not caplog.records


@pytest.mark.parametrize("at", [0, 7, 8, 12, 60, 300, 400, -1])
def test_a_changed_byte_is_noticed(tmp_path, caplog, at):
    path = tmp_path / "file"
    write_cache(path, make_source())
    content = bytearray(path.read_bytes())
    content[at] ^= 0x01
    path.write_bytes(content)
    assert read_cache(path) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"the data cache {path} is damaged" in record.getMessage()


@pytest.mark.parametrize("length", [0, 1, 9, 10, 100, 300, -1])
def test_a_truncated_file_is_noticed(tmp_path, caplog, length):
    path = tmp_path / "file"
    write_cache(path, make_source())
    path.write_bytes(path.read_bytes()[:length])
    assert read_cache(path) is None
    assert len(caplog.records) == 1


def test_a_file_of_another_kind(tmp_path, caplog):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5000))
    assert read_cache(path) is None
    path.unlink()
    path.mkdir()
    assert read_cache(path) is None
    assert len(caplog.records) == 2


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    write_cache(tmp_path / "file" / "cache" / "entry", make_source())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "some/set is decoded again at every start" in record.getMessage()
    assert "FISHER_JAX_CACHE_DIR" in record.getMessage()


def test_a_full_disk_leaves_nothing_behind(tmp_path, caplog):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this machine")

    class FullDisk(type(tmp_path)):
        def open(self, *args, **options):
            super().open("wb").close()
            return full.open("wb")

    path = FullDisk(tmp_path / "file")
    write_cache(path, make_source())
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_abandoned_files_are_removed_and_others_kept(tmp_path):
    old, young = tmp_path / "x.old.partial", tmp_path / "x.young.partial"
    other = tmp_path / "other.images"
    long_ago = time.time() - 100_000
    for path in (old, young, other):
        path.write_text("some bytes")
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    write_cache(tmp_path / "file", make_source())
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.young.partial",
        "other.images",
        "file",
    }


def _write_often(path: Path, seed: int) -> None:
    # A warning would be a failed write.
    logging.getLogger("fisher_jax.data.cache").addHandler(_Raise())
    source = make_source(seed, num_train=4000)
    for _ in range(60):
        write_cache(path, source)


class _Raise(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


def test_many_processes_write_and_read_one_file(tmp_path, caplog):
    """A reader sees one of the whole sources at every moment."""
    path = tmp_path / "file"
    sources = [make_source(seed, num_train=4000) for seed in range(3)]
    write_cache(path, sources[0])
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write_often, args=(path, seed)) for seed in range(3)
    ]
    for writer in writers:
        writer.start()
    labels = [source.train.labels.tobytes() for source in sources]
    seen = set()
    while any(writer.is_alive() for writer in writers):
        result = read_cache(path)
        seen.add(labels.index(result.train.labels.tobytes()))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(seen) > 1
    assert not caplog.records
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# --- Where a set is cached ------------------------------------------------------------


@pytest.fixture
def prepared_dir(tmp_path) -> Path:
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "a").write_text("one")
    (folder / "b").write_text("two")
    return folder


def test_the_path_is_stable_and_readable(tmp_path, prepared_dir):
    path = cache_path(tmp_path, "set/config:1.0.0", prepared_dir)
    assert path == cache_path(tmp_path, "set/config:1.0.0", prepared_dir)
    assert path.parent == tmp_path
    assert path.name.startswith("set-config-1.0.0-")


def touch(folder: Path) -> None:
    stat = (folder / "a").stat()
    os.utime(folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


CHANGES = {
    "size": lambda folder: (folder / "a").write_text("one more"),
    "time": touch,
    "removed": lambda folder: (folder / "a").unlink(),
    "added": lambda folder: (folder / "c").write_text(""),
    "renamed": lambda folder: (folder / "a").rename(folder / "c"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_the_folder_changes_the_path(tmp_path, prepared_dir, change):
    before = cache_path(tmp_path, "set", prepared_dir)
    change(prepared_dir)
    assert cache_path(tmp_path, "set", prepared_dir) != before


def test_names_and_versions_have_their_own_path(tmp_path, prepared_dir):
    paths = {cache_path(tmp_path, name, prepared_dir) for name in ("set", "other")}
    renamed = prepared_dir.rename(prepared_dir.parent / "2.0.0")
    paths.add(cache_path(tmp_path, "set", renamed))
    assert len(paths) == 3


def test_another_pillow_decodes_anew(tmp_path, prepared_dir, monkeypatch):
    before = cache_path(tmp_path, "set", prepared_dir)
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert cache_path(tmp_path, "set", prepared_dir) != before


def test_default_cache_dir(monkeypatch):
    for variable in ("FISHER_JAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache_dir() == Path("/home/someone/.cache/fisher_jax/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/fisher_jax/data")
    monkeypatch.setenv("FISHER_JAX_CACHE_DIR", "/own")
    assert default_cache_dir() == Path("/own/data")
