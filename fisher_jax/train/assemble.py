"""The one place that turns configuration keys into objects; below it, arguments."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fisher_jax import measure, parallel
from fisher_jax.data import label_noise
from fisher_jax.data.augment import channel_statistics
from fisher_jax.data.batches import steps_per_epoch
from fisher_jax.data.device import DeviceSplit, training_batch
from fisher_jax.data.image_set import ImageSet, Source
from fisher_jax.data.random_bits import random_bits
from fisher_jax.data.sources import load_source
from fisher_jax.data.splits import split_examples
from fisher_jax.errors import UserError
from fisher_jax.models import MODEL_KEYS, MODELS
from fisher_jax.train import checkpoints, loop
from fisher_jax.train.checkpoints import Best, Snapshot
from fisher_jax.train.optimizer import sgd, step_decay
from fisher_jax.train.state import TrainState, create_state, make_eval_apply
from fisher_jax.train.step import PenaltySettings, StepMetrics, StepSettings, train_step

# No penalty whose gradient is added: gradient_norm changes the gradient itself.
NOT_ADDED = ("none", "gradient_norm")


class Data(NamedTuple):
    """The splits in host memory, after subset, validation split and label noise."""

    source: Source
    train: ImageSet
    is_noisy: np.ndarray
    validation: ImageSet | None
    noise_hash: str
    effective_noise_rate: float


def load_data(config: ConfigDict) -> Data:
    """Loads the data set and draws validation split, subset and label noise."""
    dataset, seed = config.dataset, config.seed
    source = load_source(dataset.name, dataset.data_dir)
    train_ids, validation_ids = split_examples(
        seed, source.train.labels.shape[0], dataset.num_validation, dataset.num_train
    )
    noisy = label_noise.add_label_noise(
        seed,
        train_ids,
        source.train.labels[train_ids],
        source.num_classes,
        dataset.label_noise,
    )
    return Data(
        source=source,
        train=ImageSet(source.train.images[train_ids], noisy.labels),
        is_noisy=noisy.is_noisy,
        validation=_take(source.train, validation_ids) if validation_ids.size else None,
        noise_hash=label_noise.label_hash(train_ids, noisy.labels),
        effective_noise_rate=noisy.effective_rate,
    )


def build(config: ConfigDict, data: Data, mesh: Mesh) -> tuple[loop.Run, Snapshot]:
    """Makes the run's functions and its initial snapshot.

    Raises:
        UserError: the batch exceeds the data, the model does not fit the images, or
            ``train.init_from`` cannot be used.
    """
    num_train = data.train.labels.shape[0]
    per_epoch = steps_per_epoch(num_train, config.train.batch_size)
    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    chosen = {
        key: config.model[key]
        for key in MODEL_KEYS[config.model.name]
        if config.model[key] is not None
    }
    model = MODELS[config.model.name](
        num_classes=data.source.num_classes,
        dtype=dtype[config.model.compute_dtype],
        **chosen,
    )
    rate = config.optimizer
    optimizer = sgd(
        step_decay(rate.learning_rate, rate.decay_factor, rate.decay_epochs, per_epoch),
        rate.momentum,
        rate.weight_decay,
    )
    has_penalty = config.penalty.name not in NOT_ADDED
    try:
        state = create_state(
            model, optimizer, data.train.images.shape[1:], config.seed, has_penalty
        )
    except ValueError as error:
        raise UserError(f"model {config.model.name}: {error}") from error
    state = jax.device_put(state, parallel.replicated(mesh))
    if config.train.init_from is not None:
        state = checkpoints.start_from(config.train.init_from, state)
    best = None if data.validation is None else _no_best(state)
    nothing = StepMetrics(jnp.float32(0), jnp.float32(0), jnp.bool_(True))
    metrics = jax.device_put(nothing, parallel.replicated(mesh))
    snapshot = Snapshot(state, metrics, best)
    return _plan(config, data, mesh, per_epoch, make_eval_apply(model)), snapshot


def _plan(
    config: ConfigDict, data: Data, mesh: Mesh, per_epoch: int, eval_apply: Any
) -> loop.Run:
    penalty = config.penalty
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))
    batch_sharding = parallel.split_over_devices(mesh)
    return loop.Run(
        seed=config.seed,
        batch_size=config.train.batch_size,
        schedule=_schedule(config, per_epoch),
        penalty_coefficient=penalty.coefficient,
        fisher_batch=_fisher_batch(config),
        train_step=jax.jit(
            partial(train_step, settings=_step_settings(config)),
            static_argnames=("update_penalty",),
            donate_argnums=0,
            out_shardings=parallel.replicated(mesh),
        ),
        training_batch=jax.jit(
            partial(training_batch, mode=config.dataset.augment),
            out_shardings=(batch_sharding, batch_sharding),
        ),
        eval_apply=eval_apply,
        reestimation_batches=config.eval.reestimate_batch_norm,
        splits=_device_splits(config, data, mesh),
        probe=_probe(config, data),
        measure_settings=measure.MeasureSettings(
            fisher_estimator=config.measure.fisher_estimator,
            fisher_draw=config.measure.fisher_draw,
            hessian_probes=config.measure.hessian_probes,
            minibatch_size=config.train.batch_size,
            batch_size=config.measure.batch_size,
            chunk_size=config.measure.chunk_size,
        ),
        augment_key=keys[0],
        measure_key=keys[1],
    )


def _schedule(config: ConfigDict, per_epoch: int) -> loop.Schedule:
    penalty = config.penalty
    return loop.Schedule(
        num_epochs=config.train.num_epochs,
        steps_per_epoch=per_epoch,
        penalty_every=penalty.update_every,
        penalty_first_step=(
            None if penalty.name in NOT_ADDED else penalty.start_epoch * per_epoch
        ),
        measure_every_epochs=config.measure.every_epochs,
        measure_every_steps=config.measure.every_steps,
        checkpoint_every_epochs=config.checkpoint.every_epochs,
        checkpoint_min_seconds=config.checkpoint.min_seconds,
        hessian_every_epochs=config.measure.hessian_every_epochs,
    )


def _step_settings(config: ConfigDict) -> StepSettings:
    penalty = None
    if config.penalty.name not in NOT_ADDED:
        penalty = PenaltySettings(
            config.penalty.name,
            config.penalty.draw,
            config.penalty.num_examples,
            config.penalty.method,
            config.penalty.batch_norm,
        )
    is_gradient_norm = config.penalty.name == "gradient_norm"
    return StepSettings(
        penalty,
        config.mixup.beta,
        config.sam.radius,
        config.penalty.radius if is_gradient_norm else 0.0,
    )


def _fisher_batch(config: ConfigDict) -> int | None:
    """B for which B times the penalty estimates Tr(F); None if the penalty does not."""
    if config.penalty.name == "fisher":
        return config.penalty.num_examples or config.train.batch_size
    return 1 if config.penalty.name == "fisher_single" else None


def _device_splits(config: ConfigDict, data: Data, mesh: Mesh) -> measure.Splits:
    mean, std = channel_statistics(data.train.images)

    def put(split: ImageSet, is_noisy: np.ndarray | None = None) -> DeviceSplit:
        if is_noisy is None:
            is_noisy = np.zeros(split.labels.shape, bool)
        values = (split.images, split.labels, is_noisy, mean, std)
        return DeviceSplit(*jax.device_put(values, parallel.replicated(mesh)))

    train_ids = _random_order(config.seed, "scored examples", data)
    return measure.Splits(
        train=put(data.train, data.is_noisy),
        train_ids=np.sort(train_ids[: config.measure.train_examples]),
        validation=None if data.validation is None else put(data.validation),
        test=put(data.source.test),
    )


def _probe(config: ConfigDict, data: Data) -> measure.Probe:
    return measure.choose_probe(
        _random_order(config.seed, "probe examples", data),
        data.is_noisy,
        fisher_examples=config.measure.fisher_examples,
        hessian_examples=config.measure.hessian_examples,
        gradient_examples=config.measure.gradient_examples,
    )


def _random_order(seed: int, purpose: str, data: Data) -> np.ndarray:
    bits = random_bits(seed, purpose, data.train.labels.shape[0])[:, 0]
    return np.argsort(bits, kind="stable").astype(np.int32)


def _take(images: ImageSet, ids: np.ndarray) -> ImageSet:
    return ImageSet(images.images[ids], images.labels[ids])


def _no_best(state: TrainState) -> Best:
    like = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    sharding = state.penalty_value.sharding
    scalars = jax.device_put((jnp.float32(-1), jnp.int32(0)), sharding)
    return Best(*scalars, *like)
