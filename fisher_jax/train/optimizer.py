"""SGD as the paper trains with it: momentum, coupled weight decay, step decay."""

from collections.abc import Sequence

import optax


def step_decay(
    learning_rate: float,
    decay_factor: float,
    decay_epochs: Sequence[int],
    steps_per_epoch: int,
) -> optax.Schedule:
    """Returns step -> learning_rate * decay_factor^(number of epochs passed).

    The rate changes with the first step of each epoch in ``decay_epochs``, counted
    from 0, as PyTorch's MultiStepLR does.
    """
    boundaries = {epoch * steps_per_epoch: decay_factor for epoch in decay_epochs}
    return optax.piecewise_constant_schedule(learning_rate, boundaries)


def sgd(
    schedule: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns SGD with v <- momentum v + (g + weight_decay w), w <- w - rate v.

    Weight decay is coupled (it enters the momentum) and acts on every parameter,
    biases included, as in PyTorch's ``torch.optim.SGD``.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.sgd(schedule, momentum=momentum or None),
    )
