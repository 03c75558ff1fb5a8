"""What a launcher says of the processes that it has started together."""

import os

# In the order in which JAX asks them: mpirun, also inside a Slurm allocation; a step of
# one, which may be smaller than the allocation; the allocation.
COUNTS = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")


def process_count() -> int | None:
    """Returns how many processes were started together with this one, itself included.

    None where no launcher says it.
    """
    for name in COUNTS:
        count = os.environ.get(name, "")
        if count.isdecimal():
            return int(count)
    return None


def alone() -> dict[str, str]:
    """Returns what to add to the environment of a process that joins no others."""
    return {name: "1" for name in COUNTS if name in os.environ}


def slurm_port() -> int | None:
    """Returns the port at which the processes of this Slurm step should meet.

    JAX's own choice is one for all steps of a job, of which several may run on a node.
    None outside a step, and under mpirun, whose processes belong to several.
    """
    job, step = (os.environ.get(f"SLURM_{name}_ID", "") for name in ("JOB", "STEP"))
    is_step = job.isdecimal() and step.isdecimal() and COUNTS[0] not in os.environ
    return 61_440 + (int(job) + 61 * int(step)) % 4096 if is_step else None


def kubernetes_index() -> int | None:
    """Returns which pod of an indexed job this is; None in other pods and elsewhere."""
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    return int(index) if index.isdecimal() else None
