"""The real command: a run, its files, its end by kill, signal, disaster or mistake."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from benchmarks.synthetic_images import write_set
from fisher_jax.train.command_line import default_workdir
from tests.command import (
    ROOT,
    SMALL,
    assert_same_end,
    errors,
    records,
    result,
    run,
    signal_when,
    start,
)
from tests.tiers import some

EPOCHS = "--config.train.num_epochs=8"
STEPS = 64
WITHOUT_WORKDIR = (
    SMALL[0].replace("experiments/", f"{ROOT}/experiments/"), *SMALL[1:], EPOCHS
)  # fmt: skip
OWN = "runs/digits_fp_rfp"  # where that runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run, with what it printed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}", "--profile_steps=2:4")
    assert code == 0, output
    return workdir, output


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder in which a run without --workdir has been stopped on its way."""
    folder = tmp_path_factory.mktemp("stopped")
    process = start(*WITHOUT_WORKDIR, cwd=folder)
    code, output = signal_when(
        process, signal.SIGTERM, lambda: len(records_so_far(folder / OWN)) >= 3
    )
    assert code == 75, output
    assert "the same command continues" in output
    assert "Traceback" not in output
    return folder, output


def test_what_a_run_leaves_behind(finished):
    workdir, output = finished
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["penalty"]["draw"] == "rademacher"
    assert config["argv"][1:4] == list(SMALL[:3])
    assert config["versions"].keys() >= {"python", "jax", "flax", "optax", "numpy"}
    assert config["device_kind"]
    assert config["device_count"] >= 1
    assert len(config["label_noise_hash"]) >= 16
    assert 0.1 < config["label_noise_effective_rate"] < 0.35
    assert "xla_gpu_deterministic_ops=true" in config["xla_flags"]
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    assert list((workdir / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
    rows = records(workdir)
    assert [row["step"] for row in rows] == list(range(0, STEPS + 1, 8))
    last = rows[-1]
    for name in (
        "train/loss", "train/accuracy", "train/clean_accuracy", "train/noisy_accuracy",
        "validation/accuracy", "validation/loss", "test/accuracy", "test/loss",
        "trace/fisher", "trace/fisher_sem", "trace/fisher_minibatch",
        "trace/fisher_online", "gradient/clean_norm", "gradient/noisy_norm",
        "gradient/cosine", "penalty/value",
    ):  # fmt: skip
        assert isinstance(last[name], float), name
    ended = result(workdir)
    assert ended["status"] == "finished"
    assert ended["steps"] == STEPS
    assert ended["test_accuracy"] == last["test/accuracy"]
    assert ended["max_fisher_trace"] == max(r["trace/fisher"] for r in rows[1:])
    assert "99,178" in output  # the parameter count, at the start
    assert "epoch 8/8" in output
    assert re.search(r"\d+ examples/s  [\d.e-]+ TFLOP/s", output)


def test_the_same_command_again_says_that_it_is_finished(finished):
    workdir, _ = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}")
    assert code == 0
    assert "already finished" in output
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_saved_config_killed_at_random_moments_ends_in_the_same_bits(
    finished, tmp_path
):
    """SIGKILL at two moments of the run, each one continued; thirty: tests/faults."""
    undisturbed, _ = finished
    workdir, generator = tmp_path / "run", random.Random(0)
    command = (f"--config={undisturbed}/config.json", f"--workdir={workdir}")
    for lines in (2, 7):
        process = start(*command)
        pause = generator.random() * 0.1

        def moment(lines=lines, pause=pause):
            there = len(records_so_far(workdir)) >= lines
            time.sleep(pause if there else 0)
            return there

        signal_when(process, signal.SIGKILL, moment)
    code, output = run(*command)
    assert code == 0, output
    assert_same_end(workdir, undisturbed, STEPS)


def records_so_far(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.slow
def test_killed_during_a_save(finished, tmp_path):
    """SIGKILL when a checkpoint is half written, four times in a row."""
    workdir = tmp_path / "run"
    caught = 0
    for _ in range(4):
        process = start(*SMALL, EPOCHS, f"--workdir={workdir}")
        seen = set(half_written(workdir))

        def is_saving(seen=seen):
            return bool(set(half_written(workdir)) - seen)

        signal_when(process, signal.SIGKILL, is_saving)
        caught += is_saving()
    assert caught, "no kill hit a save"
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}")
    assert code == 0, output
    assert_same_end(workdir, finished[0], STEPS)


def half_written(workdir):
    return [str(p) for p in (workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=str
)
def test_a_signal_saves_and_the_same_command_continues(
    finished, tmp_path, number, exit_code
):
    """SIGTERM: test_without_a_workdir_a_run_has_its_own_and_continues_there."""
    workdir = tmp_path / "run"
    process = start(*SMALL, EPOCHS, f"--workdir={workdir}")
    code, output = signal_when(
        process, number, lambda: len(records_so_far(workdir)) >= 3
    )
    assert code == exit_code, output
    assert "the same command continues" in output
    assert "Traceback" not in output
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}")
    assert code == 0, output
    assert "Continuing from step" in output
    assert_same_end(workdir, finished[0], STEPS)


def test_a_signal_before_the_first_step_is_a_preemption_too(tmp_path):
    workdir = tmp_path / "run"
    process = start(*SMALL, EPOCHS, f"--workdir={workdir}")
    code, output = signal_when(
        process, signal.SIGTERM, lambda: (workdir / ".lock").exists()
    )
    assert code == 75, output


@pytest.mark.slow
def test_a_damaged_newest_checkpoint(finished, tmp_path):
    workdir = tmp_path / "run"
    process = start(*SMALL, EPOCHS, f"--workdir={workdir}")
    signal_when(process, signal.SIGTERM, lambda: len(records_so_far(workdir)) >= 5)
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert len(steps) == 2
    for path in (workdir / "checkpoints" / str(steps[1])).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}")
    assert code == 0, output
    assert f"continuing from step {steps[0]}" in " ".join(output.split())
    assert "Traceback" not in output
    assert_same_end(workdir, finished[0], STEPS)


def test_another_configuration_in_the_workdir_is_refused(finished):
    workdir, _ = finished
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}", "--config.seed=1")
    assert code == 2
    assert errors(output) == [
        f"error: workdir {workdir} belongs to a run with another configuration: seed 0 "
        "there, 1 here. Choose another workdir"
    ]


def test_divergence_exits_3_and_keeps_the_last_good_checkpoint(stopped, tmp_path):
    workdir = tmp_path / "run"
    # Fine for some epochs, then a rate of 1e30.
    shutil.copytree(stopped[0] / OWN, workdir)
    arguments = [*SMALL, EPOCHS, f"--workdir={workdir}"]
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["optimizer"]["learning_rate"] = 1e30
    (workdir / "config.json").write_text(json.dumps(config))
    code, output = run(*arguments, "--config.optimizer.learning_rate=1e30")
    assert code == 3, output
    assert "Diverged" in output
    assert "not finite at step" in output
    assert "Traceback" not in output
    assert result(workdir)["status"] == "diverged"
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    assert f"Last good checkpoint: {max(steps)}" in output
    code, _ = run(*arguments, "--config.optimizer.learning_rate=1e30")
    assert code == 3


MISTAKES = {
    "key": (["--config.penalty.coeficient=1"], "did you mean 'penalty.coefficient'?"),
    "name": (["--config.penalty.name=fischer"], "did you mean 'fisher'?"),
    "type": (["--config.train.num_epochs=many"], "train.num_epochs must be an integer"),
    "fraction": (["--config.dataset.label_noise=1.2"], "from 0 to 1"),
    "profile": (["--profile_steps=9:3"], "--profile_steps=9:3 must be FROM:TO"),
    "parts": (["--config.train.microbatches=3"], "train.microbatches=3 times"),
    "groups": (
        [
            "--config.model.name=wide_resnet",
            "--config.penalty.name=fisher",
            "--config.penalty.num_groups=8",
        ],
        "needs penalty.batch_norm=eval",
    ),
    "flag": (["--wrokdir=x"], "Unknown command line flag 'wrokdir'"),
    "argument": (["more"], "unexpected argument 'more'"),
    "batch": (["--config.train.batch_size=5000"], "train.batch_size=5000"),
    "validation": (["--config.dataset.num_validation=999999"], "num_validation"),
    "subset": (["--config.dataset.num_train=999999"], "num_train"),
    "data set": (["--config.dataset.name=cifar11"], "cifar1"),
    "data folder": (
        ["--config.dataset.name=cifar10", "--config.dataset.data_dir=/nonexistent"],
        "/nonexistent",
    ),
    "padding": (["--config.model.padding=keras"], "too small for padding 'keras'"),
    "photographs' key": (
        ["--config.dataset.crop_size=8"],
        "dataset.crop_size is only for data sets that are read from disk",
    ),
    "padding of crops": (["--config.dataset.crop_padding=8"], "leaves nothing"),
    "image size": (["--config.dataset.image_size=9"], "exceeds the images of digits"),
    "other run": (["--config.train.init_from=/nonexistent"], "train.init_from"),
}


@pytest.mark.parametrize(
    "case", some(MISTAKES, ("key", "flag", "batch", "data folder", "other run"))
)
def test_a_mistake_gets_one_line_and_exit_2(case, tmp_path):
    arguments, said = MISTAKES[case]
    code, output = run(*SMALL, f"--workdir={tmp_path}/run", *arguments)
    assert code == 2, output
    (line,) = errors(output)
    assert said in line
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_flags_that_are_missing(finished, tmp_path):
    code, output = run(f"--workdir={tmp_path}")
    assert code == 2
    assert "--config is missing" in output
    code, output = run(f"--config={finished[0]}/config.json")
    assert code == 2
    assert "--workdir is missing" in output


def test_without_a_workdir_a_run_has_its_own_and_continues_there(
    finished, stopped, tmp_path
):
    folder, output = stopped
    said = f"Run directory: {OWN} (--workdir=DIR chooses another)."
    assert output.splitlines()[0] == said
    shutil.copytree(folder, tmp_path / "copy")
    code, output = run(*WITHOUT_WORKDIR, cwd=tmp_path / "copy")
    assert code == 0, output
    assert "Continuing from step" in output
    assert_same_end(tmp_path / "copy" / OWN, finished[0], STEPS)


@pytest.mark.parametrize(
    ("config", "workdir"),
    [
        ("experiments/tinyimagenet_fp.py", "runs/tinyimagenet_fp"),
        ("/a/b/imagenet.py:eta_0.1", "runs/imagenet_eta_0.1"),
        ("x.py:../a b/c", "runs/x_.._a_b_c"),
    ],
)
def test_the_default_workdir(config, workdir):
    assert default_workdir(config) == workdir


def test_help_says_how():
    _, output = run("--help")
    assert "--config=experiments/digits_fp.py" in output
    assert "Exit codes" in output


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    code, output = run(*SMALL, f"--workdir={tmp_path}/file/run")
    assert code == 2
    assert "cannot write to workdir" in errors(output)[0]


def test_several_devices_must_divide_the_batch(tmp_path):
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    code, output = run(*SMALL, f"--workdir={tmp_path}/r", environment=environment)
    assert code == 2
    assert "the nearest multiples: 15 or 18" in errors(output)[0]


def test_several_devices_must_divide_the_groups(tmp_path):
    """Else a group of the penalty would lie on two of them."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    code, output = run(
        *SMALL,
        f"--workdir={tmp_path}/r",
        "--config.penalty.num_groups=2",
        environment=environment,
    )
    assert code == 2
    (line,) = errors(output)
    assert "penalty.num_groups=2" in line
    assert "4 devices" in line
    assert "Traceback" not in output


@pytest.mark.slow
def test_eight_devices_train_the_same_run(finished, tmp_path):
    """To rounding: sums are taken in another order."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    workdir = tmp_path / "run"
    code, output = run(*SMALL, EPOCHS, f"--workdir={workdir}", environment=environment)
    assert code == 0, output
    ours, theirs = records(workdir), records(finished[0])
    for a, b in itertools.islice(zip(ours, theirs, strict=True), 4):
        for name in ("train/loss", "trace/fisher", "trace/fisher_minibatch"):
            np.testing.assert_allclose(a[name], b[name], rtol=2e-3, err_msg=name)


@pytest.mark.slow
def test_every_method_of_the_paper_runs(tmp_path):
    """Two steps with each penalty, mixup, SAM and Tr(H), in one process each."""
    base = [
        "--config=experiments/base.py", "--config.dataset.num_train=32",
        "--config.train.batch_size=16", "--config.train.num_epochs=1",
        "--config.measure.fisher_examples=8", "--config.measure.hessian_examples=8",
    ]  # fmt: skip
    for name, extra in {
        "exact": ["--config.penalty.name=fisher", "--config.penalty.coefficient=0.1",
                  "--config.measure.fisher_estimator=exact",
                  "--config.measure.hessian_probes=2"],
        "single": ["--config.penalty.name=fisher_single",
                   "--config.penalty.update_every=1",
                   "--config.penalty.coefficient=1e-3",
                   "--config.measure.fisher_estimator=forward"],
        "sam": ["--config.sam.radius=0.05", "--config.measure.fisher_draw=labels"],
        "random labels": ["--config.penalty.name=random_label",
                          "--config.penalty.coefficient=0.1",
                          "--config.measure.fisher_estimator=minibatch"],
    }.items():  # fmt: skip
        code, output = run(*base, *extra, f"--workdir={tmp_path}/{name}")
        assert code == 0, output
        assert records(tmp_path / name)[-1]["step"] == 2
    last = records(tmp_path / "exact")[-1]
    assert last["trace/fisher_sem"] == 0
    assert last["trace/hessian_sem"] > 0


@pytest.mark.slow
def test_cifar10(tfds_data, tmp_path):
    """The setting of table 1 on the real images, two steps of it."""
    arguments = [
        "--config=experiments/cifar10_simplecnn_fp.py",
        f"--config.dataset.data_dir={tfds_data}", "--config.dataset.num_train=256",
        "--config.train.num_epochs=1", "--config.measure.fisher_examples=16",
        "--config.measure.train_examples=64", f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    environment = {"FISHER_JAX_CACHE_DIR": str(ROOT / ".pytest_cache" / "data")}
    code, output = run(*arguments, environment=environment, timeout=400)
    assert code == 0, output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["validation_examples"] == 5000
    assert config["test_examples"] == 10_000


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


# The reader finds each of them in tests/data/test_prepared.py.
@pytest.mark.parametrize("damage", some(DAMAGES, ["truncated"]))
def test_a_damaged_data_set_is_named(tmp_path, damage):
    write_set(tmp_path / "data")
    (path,) = (tmp_path / "data").rglob("*test.array_record*")
    DAMAGES[damage](path)
    code, output = run(
        "--config=experiments/base.py", f"--workdir={tmp_path}/run",
        "--config.dataset.name=tiny", f"--config.dataset.data_dir={tmp_path}/data",
    )  # fmt: skip
    assert code == 2, output
    (line,) = errors(output)
    assert path.name in line
    assert "Traceback" not in output


def test_an_empty_data_folder_says_how_to_prepare(tmp_path):
    code, output = run(
        "--config=experiments/cifar10_simplecnn_fp.py", f"--workdir={tmp_path}/run",
        f"--config.dataset.data_dir={tmp_path}",
    )  # fmt: skip
    assert code == 2, output
    assert "python -m fisher_jax.data.prepare cifar10" in errors(output)[0]


@pytest.mark.parametrize("width", [80, 160])
def test_on_a_terminal_there_is_a_bar(tmp_path, width):
    """A real pseudo-terminal: one bar with epoch, accuracies, speed and time left."""
    command = [sys.executable, "main.py", *SMALL, f"--workdir={tmp_path}/run"]
    command.append("--config.train.num_epochs=2")
    # COLUMNS, which the tests' workers have, would overrule the terminal's own width.
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    environment["TERM"] = "xterm"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, close_fds=True,
        env=environment,
    )  # fmt: skip
    os.close(slave)
    output = b""
    # Reading past the end of a terminal whose other side has closed is an OSError.
    with contextlib.suppress(OSError):
        while piece := os.read(master, 65536):
            output += piece
    assert process.wait(timeout=60) == 0
    text = output.decode(errors="replace")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    bars = [line for line in re.split(r"[\r\n]+", plain) if "━" in line]
    # Rich before 14 leaves two spaces before the bar.
    # Epoch, share done, speed and a clock stay whole; the record is cut at the edge.
    assert re.search(
        r"epoch   2\.0  ?━+ 100% +[\d.]+ steps/s \d\d:\d\d loss ", bars[-1]
    )
    assert all(len(line) <= width for line in bars)
    assert ("Tr(F)" in bars[-1]) == (width == 160)
