import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fisher_jax.errors import UserError
from fisher_jax.train import checkpoints, restoring
from fisher_jax.train.checkpoints import Best, PenaltySum, Snapshot
from fisher_jax.train.step import StepMetrics, create_state, injected_penalty, sgd


class Linear(nn.Module):
    """The smallest model with the call that the training loop expects."""

    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dense(3)(inputs.reshape(inputs.shape[0], -1))


def make_snapshot(step: int) -> Snapshot:
    optimizer = sgd(optax.constant_schedule(0.1), 0.9, 0.0, injected_penalty(0.1))
    state = create_state(Linear(), optimizer, (2, 2, 1), seed=step)
    state = state.replace(step=jnp.int32(step))
    penalties = PenaltySum(jnp.float32(step / 3), jnp.float32(step), jnp.int32(step))
    best = Best(jnp.float32(0.5), jnp.int32(step), state.params, {})
    metrics = StepMetrics(jnp.float32(1.5), jnp.float32(0.25), jnp.int32(0))
    return Snapshot(state, metrics, penalties, best)


def values(snapshot: Snapshot) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.as_tree(snapshot))]


def assert_same(a: Snapshot, b: Snapshot) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 10 and 20; tests damage copies of it."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with checkpoints.open_manager(directory, keep=2) as manager:
        for step in (5, 10, 20):
            checkpoints.save(manager, make_snapshot(step), step)
        checkpoints.finish(manager)
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restore(directory):
    warnings: list[str] = []
    with checkpoints.open_manager(directory, keep=2) as manager:
        like = make_snapshot(1)
        return restoring.restore_latest(manager, like, warnings.append), warnings


def test_the_last_two_are_kept_and_the_newest_comes_back(directory):
    assert {p.name for p in directory.iterdir()} >= {"10", "20"}
    assert not (directory / "5").exists()
    snapshot, warnings = restore(directory)
    assert_same(snapshot, make_snapshot(20))
    assert warnings == []
    # Training goes on with it: the key is a key again, the optimizer state a state.
    assert jax.random.uniform(snapshot.state.key).shape == ()
    state = snapshot.state
    state.tx.update(state.params, state.opt_state, state.params, renew=False)


def test_nothing_saved_gives_nothing(tmp_path):
    assert restore(tmp_path / "checkpoints") == (None, [])


def files_of(directory, step):
    return sorted(p for p in (directory / str(step)).rglob("*") if p.is_file())


def damage_truncate(files):
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_empty(files):
    for path in files:
        path.write_bytes(b"")


def damage_delete_half(files):
    for path in files[::2]:
        path.unlink()


def damage_delete_data(files):
    for path in files:
        if path.parent.name == "d":
            path.unlink()


def damage_delete_all(files):
    step = next(p for p in files[0].parents if p.name == "20")
    shutil.rmtree(step)
    step.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_empty,
        damage_delete_half,
        damage_delete_data,
        damage_delete_all,
    ],
)
def test_a_damaged_newest_gives_the_one_before(directory, damage):
    damage(files_of(directory, 20))
    snapshot, warnings = restore(directory)
    assert_same(snapshot, make_snapshot(10))
    (warning,) = warnings
    assert "20 is damaged" in warning
    assert "continuing from step 10" in warning
    assert (directory.parent / restoring.DAMAGED / "20").exists()
    # The run reaches step 20 again and saves it under the same name.
    with checkpoints.open_manager(directory, keep=2) as manager:
        checkpoints.save(manager, make_snapshot(20), 20)
        checkpoints.finish(manager)
    assert_same(restore(directory)[0], make_snapshot(20))


def test_a_flipped_bit_is_never_believed(directory):
    """Wherever a bit flips, what comes back is one of the two true states."""
    generator = np.random.default_rng(0)
    like = checkpoints.with_checksum(checkpoints.as_tree(make_snapshot(1)))
    expected = make_snapshot(20)
    fell_back = 0
    for path in files_of(directory, 20):
        intact = path.read_bytes()
        if not intact:
            continue
        position = int(generator.integers(8 * len(intact)))
        flipped = bytearray(intact)
        flipped[position // 8] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with checkpoints.open_manager(directory, keep=2) as manager:
            try:
                read = restoring._read(manager.orbax, 20, like)
            except restoring.DamagedError:
                fell_back += 1
            else:
                assert_same(checkpoints.from_tree(read, make_snapshot(1)), expected)
        path.write_bytes(intact)
    assert fell_back > 0


def contents(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fault", ["files of JSON", "files of arrays"])
def test_what_cannot_be_read_now_is_not_damaged(directory, fault):
    """A disk that fails, by the kernel's own errors: EIO, and too many links."""
    files = files_of(directory, 20)
    if fault == "files of JSON":
        failing = [p for p in files if p.name == "_METADATA"]
        target, said = Path("/proc/self/mem"), "Input/output error"
    else:
        # All: which of them are read depends on when the writer flushed.
        failing = [p for p in files if p.parent.name == "d"]
        target, said = None, "symbolic links"
    intact = {path: path.read_bytes() for path in failing}
    assert intact
    for path in failing:
        path.unlink()
        path.symlink_to(target or path)
    with pytest.raises(UserError, match=rf"cannot read checkpoint .*20: .*{said}"):
        restore(directory)
    assert not (directory.parent / restoring.DAMAGED).exists()
    # The fault passes, and the run goes on from the newest.
    for path in failing:
        path.unlink()
        path.write_bytes(intact[path])
    snapshot, warnings = restore(directory)
    assert_same(snapshot, make_snapshot(20))
    assert warnings == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
        ValueError("UNAVAILABLE: Error reading a remote file"),
        ValueError("PERMISSION_DENIED: Failed to open"),
        OSError(28, "no space left on the device"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_what_is_no_damage(error):
    assert not restoring._is_damage(error)


def test_another_versions_checkpoints_end_in_one_line(tmp_path):
    """Those of the version whose state held the penalty's gradient itself."""
    directory = tmp_path / "checkpoints"
    with checkpoints.open_manager(directory, keep=2) as manager:
        for step in (10, 20):
            tree = checkpoints.as_tree(make_snapshot(step))
            tree["state"] |= {"penalty_gradient": tree["state"]["params"]}
            checkpoints._write(manager.orbax, tree, step)
        manager.orbax.wait_until_finished()
    before = contents(directory)
    with pytest.raises(UserError, match=r"by another version of fisher_jax") as caught:
        restore(directory)
    assert "\n" not in str(caught.value)
    assert contents(directory) == before


def test_a_run_without_validation_has_no_best(tmp_path):
    snapshot = make_snapshot(20)._replace(best=None)
    with checkpoints.open_manager(tmp_path / "checkpoints", keep=1) as manager:
        checkpoints.save(manager, snapshot, 20)
        checkpoints.finish(manager)
        like = make_snapshot(1)._replace(best=None)
        restored = restoring.restore_latest(manager, like, pytest.fail)
    assert_same(restored, snapshot)
    assert restored.best is None


def test_all_damaged_is_an_error_and_deletes_nothing(directory):
    for step in (10, 20):
        damage_truncate(files_of(directory, step))
    before = contents(directory)
    with pytest.raises(UserError, match=r"all checkpoints .* damaged \(steps 10, 20"):
        restore(directory)
    assert contents(directory) == before


def test_saving_does_not_see_what_happens_to_the_memory_afterwards(tmp_path):
    """The next step reuses the state's buffers while the write is still going on."""
    overwrite = jax.jit(
        lambda tree: jax.tree.map(lambda x: x * 0 + 7, tree), donate_argnums=0
    )
    directory = tmp_path / "checkpoints"
    snapshot = make_snapshot(20)
    big = {"w": jnp.arange(4_000_000, dtype=jnp.float32)}
    snapshot = snapshot._replace(state=snapshot.state.replace(batch_stats=big))
    expected = values(snapshot)
    with checkpoints.open_manager(directory, keep=2) as manager:
        checkpoints.save(manager, snapshot, 20)
        overwrite(snapshot.state.batch_stats)["w"].block_until_ready()
        checkpoints.finish(manager)
        like = make_snapshot(1)
        zeros = {"w": jnp.zeros(4_000_000)}
        like = like._replace(state=like.state.replace(batch_stats=zeros))
        restored = restoring.restore_latest(manager, like, pytest.fail)
    for x, y in zip(values(restored), expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_any_single_flipped_bit_changes_the_checksum():
    leaf = np.random.default_rng(0).normal(size=37).astype(np.float32)
    before = np.asarray(checkpoints.checksum({"x": leaf}))
    for position in range(32 * leaf.size):
        words = leaf.view(np.uint32).copy()
        words[position // 32] ^= np.uint32(1 << (position % 32))
        after = np.asarray(checkpoints.checksum({"x": words.view(np.float32)}))
        assert after != before


@pytest.mark.parametrize(
    "leaf",
    [
        jnp.ones(3, jnp.bfloat16),
        jnp.ones(3, jnp.bool_),
        jnp.ones((), jnp.int32),
        jnp.ones((2, 0)),
        jax.random.key(0),
    ],
    ids=lambda leaf: str(leaf.dtype),
)
def test_the_checksum_takes_every_dtype(leaf):
    assert checkpoints.checksum({"x": leaf}).shape == (1,)


def test_another_runs_parameters(directory):
    own, other = make_snapshot(1).state, make_snapshot(20).state
    state = restoring.start_from(str(directory.parent), own)
    jax.tree.map(np.testing.assert_array_equal, state.params, other.params)
    assert state.step == own.step
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, own.opt_state)


def test_another_runs_running_statistics_come_too(tmp_path):
    snapshot = make_snapshot(20)
    stats = {"layer": {"mean": jnp.arange(3.0), "var": jnp.ones(3)}}
    state = snapshot.state.replace(batch_stats=stats)
    with checkpoints.open_manager(tmp_path / "checkpoints", keep=1) as manager:
        checkpoints.save(manager, snapshot._replace(state=state), 20)
        checkpoints.finish(manager)
    zeros = jax.tree.map(jnp.zeros_like, stats)
    own = make_snapshot(1).state.replace(batch_stats=zeros)
    started = restoring.start_from(str(tmp_path), own)
    jax.tree.map(np.testing.assert_array_equal, started.batch_stats, stats)


@pytest.mark.parametrize("case", ["absent", "empty", "damaged", "other model"])
def test_parameters_that_cannot_be_had(directory, case, tmp_path):
    state = make_snapshot(1).state
    run = directory.parent
    if case == "absent":
        run = tmp_path / "nowhere"
    elif case == "empty":
        shutil.rmtree(directory)
        directory.mkdir()
    elif case == "damaged":
        for step in (10, 20):
            damage_empty(files_of(directory, step))
    else:
        state = state.replace(params={"other": jnp.zeros(3)})
    with pytest.raises(UserError, match=r"train\.init_from"):
        restoring.start_from(str(run), state)
