"""What a configuration costs, by XLA's analysis of its compiled step; nothing runs.

FLOPs are those of the mathematics and hold for any device; bytes and memory are those
of the program compiled for the device at hand, and near to what others will need.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding

from fisher_jax import measure, parallel
from fisher_jax.data.batches import steps_per_epoch
from fisher_jax.data.device import DeviceSplit, UngatheredBatches
from fisher_jax.errors import UserError
from fisher_jax.train.assemble import (
    augmentation,
    load_data,
    make_model,
    make_optimizer,
    measure_settings,
    step_settings,
    steps_per_call,
)
from fisher_jax.train.feed import gather_program
from fisher_jax.train.keys import Config
from fisher_jax.train.step import (
    compile_step,
    count_parameters,
    create_state,
    make_eval_apply,
)
from fisher_jax.train.surroundings import check_mesh


class DataSize(NamedTuple):
    """All that a cost needs to know of a data set."""

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    is_streamed: bool = False


class Program(NamedTuple):
    """One compiled program: FLOPs, bytes moved to and from memory, peak bytes held."""

    flops: float
    bytes_accessed: float
    memory: float


class RunCost(NamedTuple):
    """What a run consists of.

    Attributes:
        parameters: scalars in the network.
        steps: of the whole run.
        plain: a step without an update of the penalty.
        update: a step with one; None: no penalty.
        updates: how many steps are of that kind.
        measure_flops: of all records together, in multiples of a forward pass: 1 for
            each scored example, 3 for each example of Tr(F), 6 for each example and
            probe of Tr(H).
    """

    parameters: int
    steps: int
    plain: Program
    update: Program | None
    updates: int
    measure_flops: float


# So that a cost can be told before the data is there.
KNOWN_SETS = {
    "digits": DataSize((8, 8, 1), 10, 1000, 797),
    "cifar10": DataSize((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": DataSize((32, 32, 3), 100, 50_000, 10_000),
    "tiny_imagenet": DataSize((32, 32, 3), 200, 100_000, 10_000),
    "imagenet2012": DataSize((224, 224, 3), 1000, 1_281_167, 50_000, is_streamed=True),
}


def data_size(config: Config) -> DataSize:
    """Returns the data set's size; of one not in KNOWN_SETS by opening it.

    Raises:
        UserError: it is neither known nor there.
    """
    known = KNOWN_SETS.get(config.dataset.name)
    if known is None:
        data = load_data(config)
        return DataSize(
            image_shape=data.image_shape,
            num_classes=data.source.num_classes,
            num_train=len(data.train_ids) + len(data.validation_ids),
            num_test=data.num_test,
            is_streamed=data.is_streamed,
        )
    side = config.dataset.crop_size or config.dataset.image_size
    if side is None:
        return known
    return known._replace(image_shape=(side, side, known.image_shape[2]))


def program_key(config: Config) -> str:
    """Returns a text that is the same for runs whose steps are the same programs."""
    settings = step_settings(config)
    # How strong these are changes numbers in the program, no operation.
    alike = settings._replace(
        mixup_beta=float(bool(settings.mixup_beta)),
        sam_radius=float(bool(settings.sam_radius)),
        gradient_norm_coefficient=0.0,
    )
    shapes = (data_size(config), config.model, config.train.batch_size)
    return repr((*shapes, alike))


def step_programs(config: Config) -> tuple[int, float, Program, Program | None]:
    """Compiles the step, with and without an update of the penalty, and a forward pass.

    Returns:
        The number of parameters, FLOPs of a forward pass of one example, and both
        programs, the second None without a penalty.

    Raises:
        UserError: the model does not fit the images.
    """
    state, inputs, _ = _shapes(config)
    forward = jax.jit(
        make_eval_apply(make_model(config, data_size(config).num_classes))
    ).lower(state.batch_stats, state.params, inputs)
    plain = analyse(lower_step(config, renew=False).compile())
    update = None
    if config.adds_penalty:
        update = analyse(lower_step(config, renew=True).compile())
    return (
        count_parameters(state.params),
        analyse(forward.compile()).flops / config.train.batch_size,
        plain,
        update,
    )


def lower_step(
    config: Config, *, renew: bool, mesh: Mesh | None = None
) -> jax.stages.Lowered:
    """Returns the training step, traced and ready to be compiled.

    Args:
        mesh: devices that need not be at hand; None for one like this machine's.

    Raises:
        UserError: the model does not fit the images.
    """
    state, inputs, labels = _shapes(config)
    if mesh is not None:
        state = _on(parallel.replicated(mesh), state)
        inputs, labels = _on(parallel.split_over_devices(mesh), (inputs, labels))
    step: Any = compile_step(step_settings(config), mesh)
    return step.lower(state, (inputs, labels), renew=renew)


def lower_programs(
    config: Config, mesh: Mesh
) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """What a run compiles, for devices that need not be at hand.

    Returns:
        "plain step", "evaluation", and where the configuration has them "batch", of a
        set in memory, "10 steps in a call" (the first with an update), "step with an
        update", "Tr(F)" and "Tr(H)": each traced when it is called.

    Raises:
        UserError: the model does not fit the images, or the devices not the batch.
    """
    check_mesh(config, mesh)
    data, model = data_size(config), make_model(config, data_size(config).num_classes)
    same = partial(_on, parallel.replicated(mesh))
    share = partial(_on, parallel.split_over_devices(mesh))
    state = same(_shapes(config)[0])
    logits_fn = jax.tree_util.Partial(make_eval_apply(model), state.batch_stats)
    key, integer = state.key, same(jax.ShapeDtypeStruct((), jnp.int32))

    def split(place: Callable[[Any], Any], size: int, *image: int) -> DeviceSplit:
        pixels = jax.ShapeDtypeStruct((size, *image), jnp.uint8)
        labels = jax.ShapeDtypeStruct((size,), jnp.int32)
        channels = jax.ShapeDtypeStruct(data.image_shape[-1:], jnp.float32)
        flags = jax.ShapeDtypeStruct((size,), jnp.bool_)
        shapes = (*place((pixels, labels, flags)), *same((channels, channels)))
        return DeviceSplit(*shapes, image_shape=data.image_shape)

    def rows(size: int) -> Any:
        place = same if size % mesh.size else share
        return place(jax.ShapeDtypeStruct((size,), jnp.int32))

    measured, settings = config.measure, measure_settings(config, mesh)
    num_train = min(config.dataset.num_train or data.num_train, data.num_train)
    if data.is_streamed:  # only probes are held
        num_train = max(measured.fisher_examples, measured.hessian_examples)
    train_split = split(same, num_train, math.prod(data.image_shape))
    programs: dict[str, Callable[[], jax.stages.Lowered]] = {
        "plain step": partial(lower_step, config, renew=False, mesh=mesh)
    }
    if not data.is_streamed:
        gather = gather_program(augmentation(config), mesh)
        programs["batch"] = lambda: gather.lower(
            train_split, rows(config.train.batch_size), key, integer
        )
    if config.adds_penalty:
        programs["step with an update"] = partial(
            lower_step, config, renew=True, mesh=mesh
        )
    if (steps := steps_per_call(config, mesh, data.is_streamed)) > 1:
        table = jax.ShapeDtypeStruct((steps, config.train.batch_size), jnp.int32)
        table = _on(parallel.split_over_devices(mesh, 1), table)
        batches = UngatheredBatches(train_split, table, key)
        call: Any = compile_step(step_settings(config), mesh, augmentation(config))
        programs[f"{steps} steps in a call"] = lambda: call.lower(
            state, batches, renew=config.adds_penalty
        )
    if measured.fisher_examples:
        programs["Tr(F)"] = lambda: measure.estimate_fisher.lower(
            logits_fn,
            state.params,
            train_split,
            rows(min(measured.fisher_examples, num_train)),
            key,
            settings=settings,
        )
    if measured.hessian_probes:
        programs["Tr(H)"] = lambda: measure.estimate_hessian.lower(
            logits_fn,
            state.params,
            train_split,
            rows(parallel.round_up(measured.hessian_examples, mesh)),
            integer,
            key,
            num_probes=measured.hessian_probes,
            precision=measured.precision,
        )
    scored = parallel.round_up(measured.batch_size, mesh)
    programs["evaluation"] = lambda: measure.score_batch.lower(
        logits_fn, state.params, split(share, scored, *data.image_shape), integer
    )
    return programs


def _on(sharding: Sharding, tree: Any) -> Any:
    """Shapes on devices."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def _shapes(config: Config) -> tuple[Any, Any, Any]:
    """Returns the shapes of a state, of a batch's inputs and of its labels."""
    data = data_size(config)
    model = make_model(config, data.num_classes)
    optimizer = make_optimizer(config, steps_per_epoch=1)
    try:
        state = jax.eval_shape(
            lambda: create_state(model, optimizer, data.image_shape, 0)
        )
    except ValueError as error:
        raise UserError(f"model {config.model.name}: {error}") from error
    batch = config.train.batch_size
    inputs = jax.ShapeDtypeStruct((batch, *data.image_shape), jnp.float32)
    return state, inputs, jax.ShapeDtypeStruct((batch,), jnp.int32)


def analyse(compiled: jax.stages.Compiled) -> Program:
    """Returns what XLA knows of a compiled program."""
    cost = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    held = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return Program(cost.get("flops", 0.0), cost.get("bytes accessed", 0.0), held)


def run_cost(
    config: Config, compiled: tuple[int, float, Program, Program | None]
) -> RunCost:
    """Returns a run's cost from its ``step_programs``."""
    parameters, forward, plain, update = compiled
    data = data_size(config)
    num_train = data.num_train - config.dataset.num_validation
    num_train = min(config.dataset.num_train or num_train, num_train)
    per_epoch = steps_per_epoch(num_train, config.train.batch_size)
    measure, epochs = config.measure, config.train.num_epochs
    records = 1 + -(-epochs // measure.every_epochs)
    scored = min(measure.train_examples or num_train, num_train)
    scored += config.dataset.num_validation + data.num_test
    every_step = per_epoch * epochs // measure.every_steps if measure.every_steps else 0
    probes = measure.hessian_probes * measure.hessian_examples
    hessians = 1 + -(-epochs // max(measure.every_epochs, measure.hessian_every_epochs))
    examples = (
        records * scored
        + 3 * (records + every_step) * min(measure.fisher_examples, num_train)
        + 6 * hessians * probes
    )
    steps = per_epoch * epochs
    penalised = max(0, steps - config.penalty.start_epoch * per_epoch)
    return RunCost(
        parameters,
        steps,
        plain,
        update,
        -(-penalised // config.penalty.update_every) if update else 0,
        forward * examples,
    )
