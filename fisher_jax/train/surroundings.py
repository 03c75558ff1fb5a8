"""What a configuration is refused for only beside its data set, devices and network.

What it alone tells is refused when it is read, in ``keys.py``; this before the first
step, all in one place.
"""

from jax.sharding import Mesh

from fisher_jax import parallel
from fisher_jax.errors import UserError
from fisher_jax.train.keys import Config
from fisher_jax.train.step import TrainState

# For sets whose images differ in size: they are read from disk while training.
STREAM_KEYS = (
    "resize_size",
    "crop_size",
    "decode_threads",
    "num_workers",
    "read_ahead",
)
# For sets in memory, whose images all have one size.
MEMORY_KEYS = ("image_size", "crop_padding")


def check_data(config: Config, *, is_streamed: bool) -> None:
    """Refuses keys for sets on disk with a set in memory, and the other way round.

    Raises:
        UserError: such a key is given.
    """
    dataset = config.dataset
    given = [key for key in STREAM_KEYS if getattr(dataset, key) is not None]
    if given and not is_streamed:
        raise UserError(
            f"dataset.{given[0]} is only for data sets that are read from disk during "
            f"training; {dataset.name} is held in memory"
        )
    if is_streamed and (config.train.steps_per_call or 1) > 1:
        raise UserError(
            f"train.steps_per_call={config.train.steps_per_call} is for sets that are "
            f"held in memory; {dataset.name} is read from disk in training"
        )
    given = [key for key in MEMORY_KEYS if getattr(dataset, key) is not None]
    if given and is_streamed:
        raise UserError(
            f"dataset.{given[0]} is only for data sets held in memory; {dataset.name} "
            "is read from disk during training, so use dataset.resize_size and "
            "dataset.crop_size"
        )


def check_mesh(config: Config, mesh: Mesh) -> None:
    """Refuses batches that the devices do not divide, and bfloat16 on a CPU.

    Raises:
        UserError: saying which key, and the nearest sizes that fit.
    """
    train, penalty, dtype = config.train, config.penalty, config.model.compute_dtype
    parallel.check_divides("train.batch_size", train.batch_size, mesh)
    if dtype != "float32" and parallel.is_on_cpu(mesh):
        raise UserError(
            f"model.compute_dtype={dtype} needs an accelerator: on CPUs XLA computes "
            "convolutions of that type wrongly; use float32"
        )
    if train.batch_size % (train.microbatches * mesh.size):
        raise UserError(
            f"train.batch_size={train.batch_size} is not a multiple of "
            f"train.microbatches={train.microbatches} times {mesh.size} device(s)"
        )
    # Where devices do not divide what it sees, each computes the whole penalty. That
    # groups divide what it sees, keys.py holds.
    if penalty.num_groups > 1 and config.penalised_examples % mesh.size == 0:
        parallel.check_divides("penalty.num_groups", penalty.num_groups, mesh)


def check_network(config: Config, state: TrainState) -> None:
    """Refuses what batch norm's statistics would make another quantity.

    Raises:
        UserError: the network has batch norm, and sees microbatches or groups.
    """
    microbatches, penalty = config.train.microbatches, config.penalty
    if not state.batch_stats:
        return
    if microbatches > 1:
        raise UserError(
            f"train.microbatches={microbatches} does not work with the batch norm of "
            f"model {config.model.name}: its statistics would be those of a part of "
            "the batch"
        )
    if penalty.num_groups > 1 and penalty.batch_norm == "train":
        raise UserError(
            f"penalty.num_groups={penalty.num_groups} with model {config.model.name} "
            "needs penalty.batch_norm=eval; otherwise batch norm would use the "
            "statistics of a group"
        )
