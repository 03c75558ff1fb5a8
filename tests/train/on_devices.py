"""Training and traces on whatever devices there are; prints what came out as JSON.

Run in processes of its own by test_on_devices.py, which compares device counts. All in
float64: rounding then stays far below what is compared, whatever the order of sums.

python -m tests.train.on_devices STEPS CASE,... [COORDINATOR PROCESSES INDEX]
"""

import hashlib
import json
import math
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils

from fisher_jax import measure, parallel, startup
from fisher_jax.curvature import Categorical, sample_labels
from fisher_jax.data.batches import batch_indices
from fisher_jax.data.device import (
    Augmentation,
    DeviceSplit,
    UngatheredBatches,
    scored_batches,
    training_batch,
)
from fisher_jax.models.batch_norm import batch_norm
from fisher_jax.penalties import is_penalty_update
from fisher_jax.train.gradients import PenaltySettings, StepSettings
from fisher_jax.train.step import (
    compile_step,
    create_state,
    injected_penalty,
    make_eval_apply,
    penalty_value,
    sgd,
)

EXAMPLES, BATCH, CLASSES = 96, 16, 5

CASES = {
    "plain": StepSettings(),
    "fisher": StepSettings(PenaltySettings("fisher")),
    "rademacher": StepSettings(PenaltySettings("fisher", "rademacher")),
    "subset": StepSettings(PenaltySettings("fisher", num_examples=6)),
    "groups": StepSettings(PenaltySettings("fisher", "rademacher", num_groups=8)),
    "single": StepSettings(PenaltySettings("fisher_single", num_examples=1)),
    "gradient": StepSettings(PenaltySettings("gradient")),
    "random_label": StepSettings(PenaltySettings("random_label")),
    "input_gradient": StepSettings(PenaltySettings("input_gradient")),
    "finite_difference": StepSettings(
        PenaltySettings("fisher", method="finite_difference")
    ),
    "batch_norm": StepSettings(PenaltySettings("fisher")),
    "mixup": StepSettings(PenaltySettings("fisher"), mixup_beta=0.4),
    "sam": StepSettings(PenaltySettings("fisher"), sam_radius=0.05),
    "gradient_norm": StepSettings(
        gradient_norm_radius=0.05, gradient_norm_coefficient=0.3
    ),
    "mixed_gradient_norm": StepSettings(
        mixup_beta=0.4, gradient_norm_radius=0.05, gradient_norm_coefficient=0.3
    ),
    "parts": StepSettings(PenaltySettings("fisher", "rademacher"), microbatches=2),
    "mixed_parts": StepSettings(
        PenaltySettings("fisher"), mixup_beta=0.4, microbatches=2
    ),
}


class Network(nn.Module):
    """A small smooth network, with or without batch norm."""

    has_batch_norm: bool = False

    @nn.compact
    def __call__(self, inputs, train=False):
        x = nn.Conv(8, (3, 3), dtype=jnp.float64)(inputs)
        if self.has_batch_norm:
            x = batch_norm(train, jnp.float64)(x)
        x = nn.avg_pool(nn.tanh(x), (2, 2), strides=(2, 2))
        x = nn.tanh(nn.Conv(8, (3, 3), dtype=jnp.float64)(x))
        return nn.Dense(CLASSES, dtype=jnp.float64)(x.reshape(x.shape[0], -1))


def make_split(mesh):
    """Random images and labels, the same everywhere."""
    generator = np.random.default_rng(0)
    return parallel.place(
        DeviceSplit(
            generator.integers(0, 256, (EXAMPLES, 8 * 8 * 3), dtype=np.uint8),
            generator.integers(0, CLASSES, EXAMPLES).astype(np.int32),
            np.zeros(EXAMPLES, bool),
            np.full(3, 0.5, np.float32),
            np.full(3, 0.25, np.float32),
            image_shape=(8, 8, 3),
        ),
        parallel.replicated(mesh),
    )


def digest(array):
    """A hash of a global array's bytes."""
    whole = np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return hashlib.sha256(whole.tobytes()).hexdigest()[:16]


def in_float64(tree):
    """Floating-point leaves widened."""
    return jax.tree.map(
        lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, tree
    )


def make_state(model, settings):
    """Parameters and optimizer, in float32."""
    penalty = None if settings.penalty is None else injected_penalty(0.3)
    return create_state(model, sgd(lambda _: 0.05, 0.9, 1e-4, penalty), (8, 8, 3), 0)


def train(name, steps, mesh, split):
    """Trains one case; returns values (to compare closely) and digests (exactly)."""
    settings = CASES[name]
    model = Network(has_batch_norm=name == "batch_norm")
    state = make_state(model, settings)
    state = state.replace(
        params=in_float64(state.params),
        opt_state=in_float64(state.opt_state),
        batch_stats=in_float64(state.batch_stats),
    )
    state = parallel.place(state, parallel.replicated(mesh))
    step_fn = compile_step(settings, mesh)
    rows = parallel.split_over_devices(mesh)
    batch_fn = jax.jit(
        lambda split, ids, step: training_batch(
            split, ids, jax.random.key(1), step, augmentation=Augmentation("standard")
        ),
        out_shardings=(rows, rows),
    )
    values, digests = {}, {}
    for step in range(steps):
        ids = batch_indices(3, step, EXAMPLES, BATCH)
        inputs, labels = batch_fn(split, parallel.place_rows(ids, mesh), np.int32(step))
        if step == 1:
            digests = draws(state, inputs, labels)
        update = settings.penalty is not None and is_penalty_update(step, 0, 3)
        state, metrics = step_fn(state, (inputs, labels), renew=update)
        values[f"loss{step}"] = float(metrics.loss)
        values[f"penalty{step}"] = float(penalty_value(state))
    if name == "rademacher":  # three more, in one call
        state, metrics = call(state, settings, mesh, split, range(steps, steps + 3))
        values["loss of the last in a call"] = float(metrics.loss)
        assert int(metrics.first_bad) == 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        (state.params, state.batch_stats)
    ):
        values[jax.tree_util.keystr(path)] = float(jnp.linalg.norm(leaf))
        values["first" + jax.tree_util.keystr(path)] = float(leaf.ravel()[0])
    return values | traces(model, state, mesh, split), digests


def call(state, settings, mesh, split, steps):
    """Takes the steps in one call, the penalty renewed at the first."""
    program = compile_step(settings, mesh, Augmentation("standard"))
    return program(state, ungathered(mesh, split, steps), renew=True)


def ungathered(mesh, split, steps):
    rows = np.stack([batch_indices(3, step, EXAMPLES, BATCH) for step in steps])
    columns = parallel.split_over_devices(mesh, 1)
    key = parallel.place(jax.random.key(1), parallel.replicated(mesh))
    return UngatheredBatches(split, parallel.place(rows, columns), key)


def draws(state, inputs, labels):
    """Digests of a batch and of all that is drawn at random for it."""

    def draw(state, inputs):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = state.apply_fn(variables, inputs)
        key = jax.random.key(7)
        noise = Categorical().noise(key, "rademacher", (1, *logits.shape), logits.dtype)
        return sample_labels(key, logits), noise

    sampled, noise = jax.jit(draw)(state, inputs)
    drawn = {"inputs": inputs, "labels": labels, "sampled": sampled, "noise": noise}
    return {name: digest(array) for name, array in drawn.items()}


def traces(model, state, mesh, split):
    """Tr(F), Tr(H), scores and gradients by what the training loop measures with."""
    settings = measure.MeasureSettings(hessian_probes=3, chunk_size=3, mesh=mesh)
    logits_fn = jax.tree_util.Partial(make_eval_apply(model), state.batch_stats)
    key = parallel.place(jax.random.key(5), parallel.replicated(mesh))
    network = logits_fn, state.params, split
    ids = np.arange(48, dtype=np.int32)
    values = {}
    for estimator in ("per_example", "exact", "minibatch", "forward"):
        chosen = settings._replace(fisher_estimator=estimator)
        for size in (48, 43):
            found = measure.measure_fisher(*network, ids[:size], key, chosen)
            values |= {f"{k}-{estimator}-{size}": v for k, v in found.items()}
    values |= measure.measure_hessian(*network, ids[:21], key, settings)
    values |= measure.measure_gradients(*network, ids[:9], ids[9:30], mesh)
    scored = partial(
        scored_batches,
        split,
        batch_size=20,
        num_devices=mesh.size,
        place_rows=partial(parallel.place_rows, mesh=mesh),
    )
    splits = measure.Splits(partial(scored, ids[:37]), None, scored)
    return values | measure.measure_scores(logits_fn, state.params, splits)


WIDTHS = {"f64": 8, "f32": 4, "s64": 8, "s32": 4, "u32": 4, "u8": 1, "pred": 1}
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|reduce-scatter|all-gather|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def collectives(compiled):
    """Bytes of the results of each kind of collective in a compiled program."""
    moved = {}
    for line in compiled.as_text().splitlines():
        match = COLLECTIVE.search(line)
        if match is None:
            continue
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
        size = sum(
            WIDTHS[kind] * math.prod(int(n) for n in shape.split(",") if n)
            for kind, shape in shapes
        )
        moved[match[2]] = moved.get(match[2], 0) + size
    return moved


def what_is_sent(mesh, split):
    """Collectives of steps and of Tr(F), in bytes, over those of the parameters."""
    found = {}
    key = parallel.place(jax.random.key(5), parallel.replicated(mesh))
    for name in (
        "plain",
        "rademacher",
        "groups",
        "gradient",
        "input_gradient",
        "parts",
    ):
        settings, model = CASES[name], Network()
        state = make_state(model, settings)
        params = state.params
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        state = parallel.place(state, parallel.replicated(mesh))
        rows = parallel.split_over_devices(mesh)
        inputs = jax.device_put(np.zeros((BATCH, 8, 8, 3), np.float32), rows)
        labels = jax.device_put(np.zeros(BATCH, np.int32), rows)
        for update in {False, settings.penalty is not None}:
            compiled = (
                compile_step(settings, mesh)
                .lower(state, (inputs, labels), renew=update)
                .compile()
            )
            sent = {k: v / size for k, v in collectives(compiled).items()}
            found[f"{name}, update" if update else name] = sent
        if name == "rademacher":
            steps = compile_step(settings, mesh, Augmentation("standard"))
            batches = ungathered(mesh, split, range(3))
            compiled = steps.lower(state, batches, renew=True).compile()
            sent = {k: v / size for k, v in collectives(compiled).items()}
            found["an update and two more in a call"] = sent
    measure_settings = measure.MeasureSettings(mesh=mesh)
    for size in (48, 43):
        ids = parallel.place_rows(np.arange(size, dtype=np.int32), mesh)
        logits_fn = jax.tree_util.Partial(make_eval_apply(model), {})
        compiled = measure.estimate_fisher.lower(
            logits_fn, params, split, ids, key, settings=measure_settings
        ).compile()
        found[f"Tr(F) of {size}"] = collectives(compiled)
    return found


def main(steps, cases, coordinator=None, processes=None, index=None):
    jax.config.update("jax_enable_x64", cases != "HLO")
    if coordinator is not None:
        startup.start_processes(coordinator, int(processes), int(index))
    mesh = parallel.make_mesh()
    split = make_split(mesh)
    if cases == "HLO":
        print(json.dumps({"devices": mesh.size, "found": what_is_sent(mesh, split)}))
        return
    found = {name: train(name, int(steps), mesh, split) for name in cases.split(",")}
    if parallel.is_first():
        print(json.dumps({"devices": mesh.size, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
