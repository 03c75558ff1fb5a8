"""What the PyTorch world offers for the same quantities.

``torch.func``, BackPACK, Opacus and curvlinops as their documentation uses them;
PyHessian by its algorithm, as the package itself is not maintained.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from backpack import backpack, extend
from backpack.extensions import BatchL2Grad
from backpack.extensions.firstorder.base import FirstOrderModuleExtension
from curvlinops import GGNLinearOperator, HessianLinearOperator, hutchinson_trace
from opacus.grad_sample import (
    GradSampleModule,
    GradSampleModuleFastGradientClipping,
)
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_twins import SkipInit, Twin


def gradient(twin: Twin) -> list[Tensor]:
    """Of the mean cross-entropy."""
    return list(torch.autograd.grad(twin.loss(), twin.params))


def penalty_gradient(twin: Twin, labels: Tensor | None = None) -> list[Tensor]:
    """Of the Fisher Penalty ‖∇ mean cross-entropy‖², by double backward.

    Args:
        twin: network and inputs.
        labels: None draws them from the model.
    """
    logits = twin.model(twin.inputs)
    if labels is None:
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
    loss = functional.cross_entropy(logits, labels)
    slopes = torch.autograd.grad(loss, twin.params, create_graph=True)
    penalty = torch.stack([g.square().sum() for g in slopes]).sum()
    # A gradient may not depend on some parameter, as on the last layer's bias.
    found = torch.autograd.grad(penalty, twin.params, materialize_grads=True)
    return list(found)


def trainer(
    twin: Twin, coefficient: float | None, learning_rate: float, momentum: float
) -> Callable[[int], None]:
    """Returns a call that trains for some steps, penalised by a stale gradient.

    Args:
        twin: trained in place.
        coefficient: of the penalty, renewed in the first step of each call; None for
            cross-entropy alone.
        learning_rate: of stochastic gradient descent.
        momentum: of the same.
    """
    optimizer = torch.optim.SGD(twin.params, learning_rate, momentum)

    def train(steps: int) -> None:
        if coefficient is not None:
            stale = [coefficient * g for g in penalty_gradient(twin)]
        for _ in range(steps):
            optimizer.zero_grad()
            twin.loss().backward()
            if coefficient is not None:
                grads = [p.grad for p in twin.params]
                torch._foreach_add_(grads, stale)
            optimizer.step()

    return train


def norms_by_vmap(twin: Twin, labels: Tensor) -> Callable[[], Tensor]:
    """Squared norms of per-example gradients [B] by torch.func, vmap of grad."""
    params = {name: p.detach() for name, p in twin.model.named_parameters()}

    def loss(params: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(twin.model, params, (image[None],))
        return functional.cross_entropy(logits, label[None])

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def norms() -> Tensor:
        gradients = per_example(params, twin.inputs, labels)
        return sum(g.reshape(len(g), -1).square().sum(1) for g in gradients.values())

    return norms


class _ScalarNorm(FirstOrderModuleExtension):
    """BackPACK's squared norms for a module that it does not know."""

    def __init__(self) -> None:
        super().__init__(params=["scale"])

    def scale(
        self,
        ext: BatchL2Grad,
        module: nn.Module,
        g_inp: tuple[Tensor],
        g_out: tuple[Tensor],
        bpQuantities: None,
    ) -> Tensor:
        """Per-example squared derivative in the scalar."""
        return (g_out[0] * module.input0).flatten(1).sum(1).square()


def norms_by_backpack(twin: Twin, labels: Tensor) -> Callable[[], Tensor]:
    """The same by BackPACK's BatchL2Grad."""
    model = extend(copy.deepcopy(twin.model))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    # Containers have no extension of their own and need none.
    extension = BatchL2Grad()
    extension._fail_mode = "SILENT"
    extension.set_module_extension(SkipInit, _ScalarNorm())

    def norms() -> Tensor:
        model.zero_grad()
        with without_hook_warnings():
            value = loss(model(twin.inputs), labels)
            with backpack(extension):
                value.backward()
        return sum(p.batch_l2 for p in model.parameters())

    return norms


def norms_by_opacus(twin: Twin, labels: Tensor, ghost: bool) -> Callable[[], Tensor]:
    """The same by Opacus.

    Args:
        twin: network and inputs.
        labels: [B].
        ghost: norms without per-example gradients where Opacus knows the layer.
    """
    wrapper = GradSampleModuleFastGradientClipping if ghost else GradSampleModule
    model = wrapper(copy.deepcopy(twin.model), loss_reduction="sum")

    def norms() -> Tensor:
        model.zero_grad()
        with without_hook_warnings():
            logits = model(twin.inputs)
            functional.cross_entropy(logits, labels, reduction="sum").backward()
        if ghost:
            return model.get_norm_sample().square()
        samples = [p.grad_sample for p in model.parameters()]
        return sum(s.reshape(len(s), -1).square().sum(1) for s in samples)

    return norms


@contextmanager
def without_hook_warnings() -> Iterator[None]:
    """The peers' hooks meet inputs that need no gradient; PyTorch says so each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def quadratic_forms_as_pyhessian(twin: Twin, num_probes: int) -> list[float]:
    """z'Hz of each Rademacher probe, the way of PyHessian's ``hessian.trace``.

    Yao, Gholami, Keutzer and Mahoney, "PyHessian: Neural Networks Through the Lens of
    the Hessian", 2020, arXiv:1912.07145; pyhessian/hessian.py for a single batch: the
    gradient is computed once with its graph, each probe differentiates it once more.
    """
    slopes = torch.autograd.grad(twin.loss(), twin.params, create_graph=True)
    forms = []
    for _ in range(num_probes):
        probe = [2.0 * torch.randint_like(p, high=2) - 1.0 for p in twin.params]
        product = hessian_product(slopes, twin.params, probe)
        forms.append(
            sum((h * z).sum() for h, z in zip(product, probe, strict=True)).item()
        )
    return forms


def hessian_product(
    slopes: tuple[Tensor, ...], params: list[nn.Parameter], probe: list[Tensor]
) -> tuple[Tensor, ...]:
    """H probe from a gradient that was computed with its graph."""
    return torch.autograd.grad(
        slopes, params, grad_outputs=probe, retain_graph=True, materialize_grads=True
    )


def hessian_trace_by_curvlinops(twin: Twin, num_probes: int) -> float:
    """Tr(H) by curvlinops' Hutchinson estimator."""
    return _trace_by_curvlinops(HessianLinearOperator, twin, num_probes)


def fisher_trace_by_curvlinops(twin: Twin, num_probes: int) -> float:
    """Tr(F) by the same on the Gauss–Newton matrix, which is the Fisher here."""
    return _trace_by_curvlinops(GGNLinearOperator, twin, num_probes)


def _trace_by_curvlinops(operator_class: type, twin: Twin, num_probes: int) -> float:
    operator = operator_class(
        twin.model,
        nn.CrossEntropyLoss(),
        twin.params,
        [(twin.inputs, twin.labels)],
        check_deterministic=False,
    )
    return hutchinson_trace(operator, num_probes).item()
