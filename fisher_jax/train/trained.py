"""What a run has trained, for those who look at it afterwards."""

from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fisher_jax.errors import UserError
from fisher_jax.host.paths import local_path
from fisher_jax.train.assemble import make_model
from fisher_jax.train.config import load_config
from fisher_jax.train.keys import Config
from fisher_jax.train.provenance import image_facts
from fisher_jax.train.records import require_json
from fisher_jax.train.restoring import read_newest

Which = Literal["final", "best"]


def load_run(
    run_dir: str | Path, which: Which = "final"
) -> tuple[nn.Module, dict[str, Any], Config]:
    """Returns the network that a run has trained, its variables and its configuration.

        model, variables, config = load_run("runs/demo/fp", which="best")
        logits = model.apply(variables, inputs, train=False)

    Nothing is written, and the run may be going on. It may have been on other devices;
    the variables come to the default one. The data set need not be there.

    Args:
        run_dir: the run's folder, with its config.json and checkpoints.
        which: "final", the newest checkpoint that is intact, of a finished run that of
            its last step; or "best", the parameters at the record of the best
            validation accuracy up to then, the first of equal ones.

    Returns:
        The Flax module; {"params": ...} and, of a network with batch norm,
        "batch_stats", its running statistics; the checked configuration.

    Raises:
        ValueError: another ``which``; and UserError, which is one, in one line: no run,
            no checkpoint, none that is intact, or no best parameters because the run
            sets no examples aside for validation.
    """
    if which not in ("final", "best"):
        raise ValueError(f"which: expected 'final' or 'best', got {which!r}")
    directory = local_path(str(run_dir))
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run's folder: it has no config.json")
    config = load_config(str(path))
    image_shape, num_classes = image_facts(require_json(path), path)
    model = make_model(config, num_classes)
    found = read_newest(directory).get("state" if which == "final" else "best")
    if not found:
        raise UserError(
            f"{directory} has no best parameters, as dataset.num_validation=0 left no "
            "examples to choose them by; take which='final'"
        )
    variables = {"params": found["params"], "batch_stats": found.get("batch_stats")}
    variables = {name: tree for name, tree in variables.items() if tree}
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    expected = jax.eval_shape(model.init, jax.random.key(0), image)
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, expected):
        raise UserError(
            f"the checkpoints in {directory} do not fit the network in its config.json"
        )
    return model, jax.tree.map(jnp.asarray, variables), config
