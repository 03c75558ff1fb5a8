"""The one place that turns configuration keys into what computes."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh, Sharding

from fisher_jax import measure, parallel
from fisher_jax.data.batches import steps_per_epoch
from fisher_jax.data.device import Augmentation
from fisher_jax.data.image_set import resample
from fisher_jax.data.random_bits import random_bits
from fisher_jax.data.selection import Selection, select_examples
from fisher_jax.data.sources import find_stream, load_source
from fisher_jax.data.stream_reading import ImageSize, Reading
from fisher_jax.errors import UserError
from fisher_jax.models import MODELS
from fisher_jax.train import loop, restoring
from fisher_jax.train.checkpoints import Best, Snapshot
from fisher_jax.train.feed import FeedSettings, make_feed
from fisher_jax.train.gradients import PenaltySettings, StepSettings
from fisher_jax.train.keys import Config, model_keys
from fisher_jax.train.schedule import Schedule
from fisher_jax.train.step import (
    StepMetrics,
    TrainState,
    compile_step,
    create_state,
    injected_penalty,
    make_eval_apply,
    sgd,
    step_decay,
)
from fisher_jax.train.surroundings import check_data, check_network

T = TypeVar("T")


def load_data(config: Config) -> Selection:
    """Loads or opens the data set; draws validation split, subset and label noise.

    Raises:
        UserError: the set cannot be used, or a key for sets on disk is given with a
            set in memory, or the other way round, or images are padded with more
            than they are wide.
    """
    dataset = config.dataset
    stream = find_stream(dataset.name, dataset.data_dir)
    check_data(config, is_streamed=stream is not None)
    data = select_examples(
        stream
        or resample(load_source(dataset.name, dataset.data_dir), dataset.image_size),
        seed=config.seed,
        num_validation=dataset.num_validation,
        num_train=dataset.num_train,
        label_noise=dataset.label_noise,
        size=_given(ImageSize, resize=dataset.resize_size, crop=dataset.crop_size),
        reading=_given(
            Reading,
            num_threads=dataset.decode_threads,
            num_workers=dataset.num_workers,
            read_ahead=dataset.read_ahead,
        ),
    )
    if (dataset.crop_padding or 0) >= min(data.image_shape[:2]):
        raise UserError(
            f"dataset.crop_padding={dataset.crop_padding} leaves nothing of some "
            f"crops of {dataset.name}: its images have {data.image_shape[:2]} pixels"
        )
    return data


def build(config: Config, data: Selection, mesh: Mesh) -> tuple[loop.Plan, Snapshot]:
    """Makes the run's functions and its initial snapshot, after ``check_mesh``.

    Raises:
        UserError: the batch exceeds the data, the model does not fit the images,
            ``train.init_from`` cannot be used, or as in ``surroundings.py``.
    """
    per_epoch = steps_per_epoch(len(data.labels), config.train.batch_size)
    model = make_model(config, data.source.num_classes)
    in_a_call = steps_per_call(config, mesh, data.is_streamed)
    schedule = make_schedule(config, per_epoch, in_a_call)
    optimizer = make_optimizer(config, per_epoch)
    try:
        state = create_state(model, optimizer, data.image_shape, config.seed)
    except ValueError as error:
        raise UserError(f"model {config.model.name}: {error}") from error
    check_network(config, state)
    everywhere = parallel.replicated(mesh)
    state = parallel.place(state, everywhere)
    if config.train.init_from is not None:
        state = restoring.start_from(config.train.init_from, state)
    best = _no_best(state, everywhere) if data.validation_ids.size else None
    nothing = StepMetrics(jnp.float32(0), jnp.float32(0), jnp.int32(0))
    metrics = parallel.place(nothing, everywhere)
    snapshot = Snapshot(state, metrics, loop.no_penalties(everywhere), best)
    # B times these penalties estimates Tr(F), but not with a batch's own statistics.
    is_estimate = config.penalty.name in ("fisher", "fisher_single") and (
        config.penalty.batch_norm == "eval" or not state.batch_stats
    )
    number = config.penalised_examples if is_estimate else None
    eval_apply = make_eval_apply(model)
    return _plan(config, data, mesh, schedule, eval_apply, number), snapshot


def make_model(config: Config, num_classes: int) -> nn.Module:
    """Returns the network that ``config.model`` names; keys of None are left out."""
    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    return MODELS[config.model.name](
        num_classes=num_classes,
        dtype=dtype[config.model.compute_dtype],
        **model_keys(config.model),
    )


def make_optimizer(
    config: Config, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns SGD with the step decay of ``config.optimizer``, and the penalty."""
    optimizer, penalty = config.optimizer, None
    learning_rate = step_decay(
        optimizer.learning_rate,
        optimizer.decay_factor,
        optimizer.decay_epochs,
        steps_per_epoch,
    )
    if config.adds_penalty:
        penalty = injected_penalty(config.penalty.coefficient)
    return sgd(learning_rate, optimizer.momentum, optimizer.weight_decay, penalty)


def _plan(
    config: Config,
    data: Selection,
    mesh: Mesh,
    schedule: Schedule,
    eval_apply: Any,
    penalised_examples: int | None,
) -> loop.Plan:
    augment_key, measure_key = parallel.place(
        jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1)),
        parallel.replicated(mesh),
    )
    settings = step_settings(config)
    return loop.Plan(
        schedule=schedule,
        penalised_examples=penalised_examples,
        mesh=mesh,
        batch_shape=(config.train.batch_size, *data.image_shape),
        step=compile_step(settings, mesh, augmentation(config)),
        step_on_one_device=compile_step(settings),
        eval_apply=eval_apply,
        reestimation_batches=config.eval.reestimate_batch_norm,
        feed=make_feed(data, mesh, _feed_settings(config, data, augment_key)),
        measure_settings=measure_settings(config, mesh),
        measure_key=measure_key,
    )


def steps_per_call(config: Config, mesh: Mesh, is_streamed: bool) -> int:
    """``train.steps_per_call``, or what suits data and devices."""
    suitable = 1 if is_streamed or parallel.is_on_cpu(mesh) else 10
    return config.train.steps_per_call or suitable


def make_schedule(
    config: Config, steps_per_epoch: int, steps_per_call: int = 1
) -> Schedule:
    """Returns when penalty updates, records and checkpoints are due."""
    return Schedule(
        num_epochs=config.train.num_epochs,
        steps_per_epoch=steps_per_epoch,
        adds_penalty=config.adds_penalty,
        update_every=config.penalty.update_every,
        first_step=config.penalty.start_epoch * steps_per_epoch,
        measure_every_epochs=config.measure.every_epochs,
        measure_every_steps=config.measure.every_steps,
        checkpoint_every_epochs=config.checkpoint.every_epochs,
        checkpoint_min_seconds=config.checkpoint.min_seconds,
        hessian_every_epochs=config.measure.hessian_every_epochs,
        steps_per_call=steps_per_call,
    )


def step_settings(config: Config) -> StepSettings:
    """Returns what is fixed when the training step is compiled."""
    penalty = None
    if config.adds_penalty:
        penalty = PenaltySettings(
            name=config.penalty.name,
            draw=config.penalty.draw,
            num_examples=config.penalised_examples,
            method=config.penalty.method,
            batch_norm=config.penalty.batch_norm,
            num_groups=config.penalty.num_groups,
        )
    is_gradient_norm = config.penalty.name == "gradient_norm"
    return StepSettings(
        penalty=penalty,
        mixup_beta=config.mixup.beta,
        sam_radius=config.sam.radius,
        gradient_norm_radius=config.penalty.radius if is_gradient_norm else 0.0,
        gradient_norm_coefficient=config.penalty.coefficient
        if is_gradient_norm
        else 0.0,
        microbatches=config.train.microbatches,
    )


def augmentation(config: Config) -> Augmentation:
    """Returns how training images are augmented."""
    dataset = config.dataset
    return _given(Augmentation, mode=dataset.augment, padding=dataset.crop_padding)


def measure_settings(config: Config, mesh: Mesh) -> measure.MeasureSettings:
    """Returns how Tr(F) and Tr(H) are estimated along a run."""
    return measure.MeasureSettings(
        fisher_estimator=config.measure.fisher_estimator,
        fisher_draw=config.measure.fisher_draw,
        hessian_probes=config.measure.hessian_probes,
        estimator_repeats=config.measure.estimator_repeats,
        minibatch_size=config.train.batch_size,
        chunk_size=config.measure.chunk_size,
        precision=config.measure.precision,
        mesh=mesh,
    )


def _feed_settings(config: Config, data: Selection, augment_key: Array) -> FeedSettings:
    scored = _random_order(config.seed, "scored examples", data)
    probe = measure.choose_probe(
        _random_order(config.seed, "probe examples", data),
        data.is_noisy,
        fisher_examples=config.measure.fisher_examples,
        hessian_examples=config.measure.hessian_examples,
        gradient_examples=config.measure.gradient_examples,
    )
    return FeedSettings(
        seed=config.seed,
        batch_size=config.train.batch_size,
        augmentation=augmentation(config),
        augment_key=augment_key,
        scored_rows=np.sort(scored[: config.measure.train_examples]),
        scored_batch_size=config.measure.batch_size,
        probe=probe,
    )


def _given(kind: Callable[..., T], **values: int | str | None) -> T:
    """The kind's own default where a value is None."""
    return kind(**{name: value for name, value in values.items() if value is not None})


def _random_order(seed: int, purpose: str, data: Selection) -> np.ndarray:
    bits = random_bits(seed, purpose, len(data.labels))[:, 0]
    return np.argsort(bits, kind="stable").astype(np.int32)


def _no_best(state: TrainState, sharding: Sharding) -> Best:
    like = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    scalars = parallel.place((np.float32(-1), np.int32(0)), sharding)
    return Best(*scalars, *like)
