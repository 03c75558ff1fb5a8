"""A run on a set that is read from disk: the same as in memory, resumed to the bit."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.synthetic_images import write_photographs, write_set
from fisher_jax import parallel
from fisher_jax.data import record_files
from fisher_jax.data.selection import add_label_noise
from fisher_jax.errors import DataError, UserError
from fisher_jax.train import assemble, loop
from fisher_jax.train.config import check_config
from fisher_jax.train.provenance import facts_of
from fisher_jax.train.surroundings import check_mesh
from tests import command
from tests.tiers import some
from tests.train.sessions import assert_same_end, go_on, make_plan, without_time

pytest.importorskip("grain", reason="SKIPPED LOUDLY: streaming needs grain")

NUM_TRAIN, NUM_TEST = 61, 11
SIZES = ((50, 40), (40, 56), (36, 36), (90, 45))


def small_config(data_dir, **overrides):
    """Three steps an epoch; noise, and all that reads examples."""
    config = {
        "dataset.name": "photos",
        "dataset.data_dir": str(data_dir),
        "dataset.num_validation": 9,
        "dataset.label_noise": 0.4,
        "dataset.resize_size": 36,
        "dataset.crop_size": 32,
        "dataset.augment": "standard",
        "train.batch_size": 16,
        "train.num_epochs": 2,
        "penalty.name": "fisher",
        "penalty.coefficient": 0.05,
        "penalty.update_every": 2,
        "penalty.num_examples": 4,
        "measure.every_steps": 2,
        "measure.fisher_examples": 6,
        "measure.hessian_examples": 4,
        "measure.gradient_examples": 5,
        "measure.batch_size": 20,
        "measure.chunk_size": 6,
        "checkpoint.min_seconds": 0.0,
    }
    return check_config(config | overrides)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder, NUM_TRAIN, num_files=4, num_test=NUM_TEST, sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def plan(data_dir):
    return make_plan(small_config(data_dir))


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    return go_on(plan, directory), directory


@pytest.mark.parametrize("step", some([1, 3], [3]))
def test_stopped_after_a_step(plan, undisturbed, tmp_path, step):
    with pytest.raises(loop.Stopped) as stopped:
        go_on(plan, tmp_path, stop_after=step)
    assert stopped.value.step == step
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


@pytest.mark.slow
def test_with_batch_norm(data_dir, tmp_path):
    """Statistics are estimated anew on batches of their own stream."""
    network = {
        "model.name": "resnet",
        "model.depth": 8,
        "eval.reestimate_batch_norm": 2,
    }
    plan = make_plan(small_config(data_dir, **network))
    directories = [tmp_path / name for name in ("undisturbed", "resumed")]
    for directory in directories:
        directory.mkdir()
    snapshot = go_on(plan, directories[0])
    for step in (1, 2, 3, 5):
        with pytest.raises(loop.Stopped):
            go_on(plan, directories[1], stop_after=step)
    resumed = go_on(plan, directories[1])
    assert_same_end(resumed, directories[1], (snapshot, directories[0]))


def test_how_it_is_read_changes_nothing(data_dir, undisturbed, tmp_path):
    other = small_config(
        data_dir, **{"dataset.decode_threads": 1, "dataset.read_ahead": 1}
    )
    assert_same_end(go_on(make_plan(other), tmp_path), tmp_path, undisturbed)


def test_a_damaged_file_loses_no_step(plan, data_dir, undisturbed, tmp_path):
    """The error comes when the file is needed, after what is done has been saved."""
    with pytest.raises(loop.Stopped):
        go_on(plan, tmp_path, stop_after=1)
    (path, *_) = sorted(Path(data_dir).rglob("photos-train*"))
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    record_files._shared_reader.cache_clear()
    try:
        with pytest.raises(DataError, match=f"{path}"):
            go_on(plan, tmp_path)
    finally:
        path.write_bytes(content)
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_a_damaged_test_split_loses_no_step(plan, data_dir, undisturbed, tmp_path):
    with pytest.raises(loop.Stopped):
        go_on(plan, tmp_path, stop_after=1)
    (path,) = Path(data_dir).rglob("photos-test*")
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    record_files._shared_reader.cache_clear()
    try:
        with pytest.raises(DataError, match=f"{path}"):
            go_on(plan, tmp_path)
    finally:
        path.write_bytes(content)
    saved = [int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()]
    assert max(saved) == 3
    assert_same_end(go_on(plan, tmp_path), tmp_path, undisturbed)


def test_nothing_goes_on_reading(undisturbed):
    import threading

    assert not [t for t in threading.enumerate() if "grain" in t.name]


def test_it_is_the_run_in_memory(tmp_path):
    """Images of one size, described once with it and once without."""
    memory, streamed = tmp_path / "memory", tmp_path / "streamed"
    for folder in (memory, streamed):
        write_set(
            folder, name="photos", shape=(32, 32, 3), sizes={"train": (40, 21),
            "test": (11,)}, num_classes=10,
        )  # fmt: skip
    description = streamed / "photos" / "1.0.0" / "features.json"
    content = json.loads(description.read_text())
    image = content["featuresDict"]["features"]["image"]["image"]
    image["shape"]["dimensions"] = ["-1", "-1", "3"]
    description.write_text(json.dumps(content))
    unaugmented = {"dataset.augment": "none"}
    sizes = {"dataset.resize_size": 32, "dataset.crop_size": 32}
    no_sizes = dict.fromkeys(sizes)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    go_on(make_plan(small_config(memory, **unaugmented, **no_sizes)), tmp_path / "a")
    go_on(make_plan(small_config(streamed, **unaugmented, **sizes)), tmp_path / "b")
    rows = without_time(tmp_path / "a" / "metrics.jsonl")
    streamed_rows = without_time(tmp_path / "b" / "metrics.jsonl")
    assert [row.keys() for row in rows] == [row.keys() for row in streamed_rows]
    assert len(rows) == 5
    assert {"validation/loss", "gradient/cosine"} < rows[0].keys()
    for row, other in zip(rows, streamed_rows, strict=True):
        for name, value in row.items():
            np.testing.assert_allclose(other[name], value, rtol=1e-3, err_msg=name)


def test_noise_and_split_are_those_of_sets_in_memory(data_dir, plan):
    data = assemble.load_data(small_config(data_dir))
    labels = data.train_ids % 10
    expected = add_label_noise(0, data.train_ids, labels, 10, 0.4)
    np.testing.assert_array_equal(data.is_noisy, expected.is_noisy)
    assert data.effective_noise_rate == expected.effective_rate > 0.1
    drawn = data.labels >= 0
    np.testing.assert_array_equal(data.labels[drawn], expected.labels[drawn])
    np.testing.assert_array_equal(labels[~drawn], expected.labels[~drawn])
    facts = facts_of(data, plan[0], plan[1]().state)
    assert facts["images"] == "32x32x3, 10 classes"
    counts = [facts[f"{name} examples"] for name in ("training", "validation", "test")]
    assert counts == [NUM_TRAIN - 9, 9, NUM_TEST]
    assert len(facts["label_noise_hash"]) == 32
    assert facts["label_noise_effective_rate"] == data.effective_noise_rate
    probe = plan[0].feed.probe
    noisy = plan[0].feed.probe_examples.is_noisy
    assert noisy[probe.noisy_ids].all()
    assert not noisy[probe.clean_ids].any()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"dataset.crop_size": 37}, "dataset.crop_size=37 exceeds dataset.resize_size"),
        ({"dataset.resize_size": 20}, "crop_size=32 exceeds dataset.resize_size=20"),
        ({"dataset.image_size": 16}, "dataset.image_size is only for data sets held"),
        (
            {"dataset.crop_padding": 1},
            "dataset.crop_padding is only for data sets held",
        ),
        ({"dataset.name": "digits"}, "dataset.resize_size is only for data sets"),
    ],
)
def test_keys_that_do_not_fit_the_set(data_dir, overrides, said):
    with pytest.raises(UserError, match=said):
        assemble.load_data(small_config(data_dir, **overrides))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it works elsewhere")
def test_bfloat16_is_refused_on_cpu():
    config = check_config({"model.compute_dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"model.compute_dtype=bfloat16 needs an acc"):
        check_mesh(config, parallel.make_mesh())


SMALL_NETWORK = (
    "--config=experiments/base.py",
    "--config.dataset.name=photos",
    "--config.dataset.resize_size=36",
    "--config.dataset.crop_size=32",
    "--config.dataset.augment=standard",
    "--config.train.batch_size=16",
    "--config.train.num_epochs=4",
    "--config.penalty.name=fisher",
    "--config.penalty.coefficient=0.05",
    "--config.penalty.update_every=2",
    "--config.measure.fisher_examples=8",
    "--config.measure.batch_size=24",
    "--config.checkpoint.min_seconds=0",
)


@pytest.mark.slow
def test_the_command_killed_and_continued(data_dir, tmp_path):
    """Threads and processes that read ahead neither hinder an end nor a new start."""
    common = [*SMALL_NETWORK, f"--config.dataset.data_dir={data_dir}"]
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "run"
    code, output = command.run(*common, f"--workdir={undisturbed}", timeout=900)
    assert code == 0, output
    # Decoding in processes in place of threads changes nothing either.
    common.append("--config.dataset.num_workers=1")
    for number in (signal.SIGKILL, signal.SIGTERM):
        lines = len(command.records(workdir)) + 1
        process = command.start(*common, f"--workdir={workdir}")
        code, output = command.signal_when(
            process, number, lambda n=lines: len(command.records(workdir)) >= n, 900
        )
        assert code == (-number if number == signal.SIGKILL else 75), output
    code, output = command.run(*common, f"--workdir={workdir}", timeout=900)
    assert code == 0, output
    assert "Traceback" not in output
    assert command.records(workdir) == command.records(undisturbed)


@pytest.mark.slow
def test_two_processes_share_the_batches(data_dir, tmp_path):
    """Each decodes its rows; the run is that of one process, to rounding."""
    common = [*SMALL_NETWORK, f"--config.dataset.data_dir={data_dir}"]
    code, output = command.run(*common, f"--workdir={tmp_path}/alone", timeout=900)
    assert code == 0, output
    group = command.start_group(*common, f"--workdir={tmp_path}/shared")
    for code, output in command.finish_group(group, timeout=1800):
        assert code == 0, output
    ours = command.records(tmp_path / "shared")
    theirs = command.records(tmp_path / "alone")
    for row, other in zip(ours[:3], theirs[:3], strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            if value is None:
                assert row[name] is None, name
                continue
            np.testing.assert_allclose(row[name], value, rtol=5e-3, err_msg=name)
