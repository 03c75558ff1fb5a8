"""Kills, signals, damaged checkpoints and full disks, on the real command."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from tests.command import (
    SMALL,
    assert_same_end,
    errors,
    lines_of,
    records,
    run,
    signal_when,
    start,
)

EPOCHS = 16
STEPS = 8 * EPOCHS
COMMAND = (*SMALL, f"--config.train.num_epochs={EPOCHS}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    started = time.monotonic()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 0, output
    return workdir, time.monotonic() - started


@pytest.fixture(scope="module")
def interrupted(undisturbed, tmp_path_factory):
    """A run that was preempted, with two checkpoints."""
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    process = start(*COMMAND, f"--workdir={workdir}")
    signal_when(process, signal.SIGTERM, lambda: len(lines_of(workdir)) >= 5)
    assert len(list((workdir / "checkpoints").iterdir())) == 2
    return workdir


@pytest.mark.slow
def test_thirty_kills_of_one_run(undisturbed, tmp_path, fault):
    """At any moment: while starting, compiling, training, measuring, saving, ending."""
    tally, generator = fault("SIGKILL at a random moment"), random.Random(0)
    workdir, (reference, seconds) = tmp_path / "run", undisturbed
    for number in range(30):
        process = start(*COMMAND, f"--workdir={workdir}")
        # Kills before the first checkpoint of a session teach little: half of them wait
        # for a new record first.
        before, deadline = len(lines_of(workdir)), time.monotonic() + seconds
        while number % 2 and time.monotonic() < deadline and process.poll() is None:
            if len(lines_of(workdir)) != before:
                break
            time.sleep(0.002)
        time.sleep(generator.random() * (0.3 if number % 2 else 0.8 * seconds))
        tally.tried()
        process.kill()
        process.communicate()
        for line in lines_of(workdir)[:-1]:
            assert line.startswith(b"{")
            assert line.endswith(b"}")
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 0, output
    assert_same_end(workdir, reference, STEPS)
    tally.survived(30)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_preempted_again_and_again(undisturbed, tmp_path, fault, number):
    tally, generator = fault(signal.Signals(number).name), random.Random(1)
    workdir = tmp_path / "run"
    for lines in (2, 5, 9):
        process = start(*COMMAND, f"--workdir={workdir}")
        pause = generator.random() * 0.2
        arrived = []

        def moment(lines=lines, pause=pause, arrived=arrived):
            if len(lines_of(workdir)) < lines:
                return False
            time.sleep(pause)
            arrived.append(time.monotonic())
            return True

        tally.tried()
        code, output = signal_when(process, number, moment)
        assert time.monotonic() - arrived[0] < 10
        assert code == 75, output
        assert "Traceback" not in output
        tally.survived()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 0, output
    assert_same_end(workdir, undisturbed[0], STEPS)


def truncate(files):
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(files):
    for path in files:
        path.write_bytes(b"")


def flip(files):
    """One bit of every file, in its middle."""
    for path in files:
        content = bytearray(path.read_bytes())
        if content:
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def delete_half(files):
    for path in files[::2]:
        path.unlink()


DAMAGES = (truncate, empty, flip, delete_half)


def damage_step(workdir, step, damage):
    folder = workdir / "checkpoints" / str(step)
    damage(sorted(path for path in folder.rglob("*") if path.is_file()))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_the_newest_checkpoint_damaged(
    interrupted, undisturbed, tmp_path, fault, damage
):
    tally = fault(f"newest checkpoint: {damage.__name__}")
    workdir = shutil.copytree(interrupted, tmp_path / "run")
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    damage_step(workdir, steps[-1], damage)
    tally.tried()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 0, output
    assert output.count("Warning: ") == 1
    assert f"continuing from step {steps[0]}" in " ".join(output.split())
    assert_same_end(workdir, undisturbed[0], STEPS)
    tally.survived()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_all_checkpoints_damaged(interrupted, tmp_path, fault, damage):
    tally = fault(f"all checkpoints: {damage.__name__}")
    workdir = shutil.copytree(interrupted, tmp_path / "run")
    for folder in (workdir / "checkpoints").iterdir():
        damage_step(workdir, folder.name, damage)
    held = {"checkpoints", "metrics.jsonl", "config.json"}
    before = {
        path: path.read_bytes()
        for name in held
        for path in [workdir / name, *(workdir / name).rglob("*")]
        if path.is_file()
    }
    tally.tried()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 2, output
    (line,) = errors(output)
    assert "all checkpoints" in line
    assert {path: path.read_bytes() for path in before} == before
    tally.survived()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes that can grow, or a skip where none may be."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system may not be mounted here")

    def grow():
        subprocess.run(
            ["mount", "-o", "remount,size=100m", str(folder)],
            check=True,
        )

    yield folder, grow
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1, 3, 6, 10])
def test_a_full_disk(small_disk, undisturbed, fault, lines):
    """The disk fills up once so many records are there; later there is space again."""
    tally = fault("disk full")
    disk, grow = small_disk
    workdir, ballast = disk / "run", disk / "ballast"
    process = start(*COMMAND, f"--workdir={workdir}")
    deadline = time.monotonic() + 300
    while len(lines_of(workdir)) < lines and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    tally.tried()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    (line,) = errors(output)
    assert "No space left" in line or "cannot write" in line
    assert "Traceback" not in output
    for line in lines_of(workdir):
        assert line.endswith(b"}")
    ballast.unlink()
    grow()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    assert code == 0, output
    assert_same_end(workdir, undisturbed[0], STEPS)
    tally.survived()


@pytest.mark.slow
def test_fewer_and_fewer_devices(tmp_path, fault):
    """Eight, two, one; at a small rate, which keeps rounding small."""
    tally = fault("other device count (8, 2, 1)")
    command = (
        *COMMAND, "--config.optimizer.learning_rate=1e-4",
        "--config.measure.gradient_examples=0",
    )  # fmt: skip
    reference, workdir = tmp_path / "one", tmp_path / "run"
    code, output = run(*command, f"--workdir={reference}")
    assert code == 0, output
    for devices, lines in ((8, 5), (2, 10), (1, None)):
        flags = f"--xla_force_host_platform_device_count={devices}"
        process = start(
            *command, f"--workdir={workdir}", environment={"XLA_FLAGS": flags}
        )
        if lines is None:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
            break
        tally.tried()
        code, output = signal_when(
            process, signal.SIGTERM, lambda n=lines: len(lines_of(workdir)) >= n
        )
        assert code == 75, output
    for ours, theirs in zip(records(workdir), records(reference), strict=True):
        for name, value in theirs.items():
            # Where rounding switches a ReLU on or off, gradients jump, losses do not.
            # Smooth networks, in float64: tests/train/test_on_devices.py.
            is_of_gradients = name.startswith(("trace/", "penalty/"))
            expected = pytest.approx(value, rel=2e-2 if is_of_gradients else 1e-5)
            assert ours[name] == expected, (ours["step"], name)
    tally.survived(2)


def test_two_starts_in_one_workdir(tmp_path, fault):
    tally = fault("two starts in one workdir")
    workdir = tmp_path / "run"
    first = start(*COMMAND, f"--workdir={workdir}")
    while not (workdir / ".lock").exists():
        assert first.poll() is None
        time.sleep(0.01)
    tally.tried()
    code, output = run(*COMMAND, f"--workdir={workdir}")
    first.kill()
    first.communicate()
    assert code == 2, output
    assert "another process is running" in errors(output)[0]
    tally.survived()


@pytest.mark.slow
def test_files_of_the_data_set_damaged_at_the_start(tmp_path, fault):
    """Of a set in memory; of a set on disk see tests/train/test_streamed_run.py."""
    from benchmarks.synthetic_images import write_set

    def vanish(files):
        for path in files:
            path.unlink()

    for damage in (truncate, empty, flip, vanish):
        tally = fault(f"data file: {damage.__name__}")
        data = tmp_path / damage.__name__
        write_set(data)
        (path,) = data.rglob("*test.array_record*")
        damage([path])
        tally.tried()
        code, output = run(
            "--config=experiments/base.py", f"--workdir={tmp_path}/run",
            "--config.dataset.name=tiny", f"--config.dataset.data_dir={data}",
            environment={"FISHER_JAX_CACHE_DIR": os.fspath(tmp_path / "cache")},
        )  # fmt: skip
        assert code == 2, output
        (line,) = errors(output)
        assert path.name in line
        tally.survived()
