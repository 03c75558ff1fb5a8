"""The GPT of ``gpt.py`` in PyTorch, and the norms of its per-example gradients there.

``python -m benchmarks.torch_gpt`` compares PyTorch's vmap(grad) and Opacus' per-example
gradients with ours in value and then in time. Opacus' ghost norms refuse tied tables;
BackPACK has no rule for LayerNorm.
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import torch_peers
from benchmarks.gpt import gpt
from benchmarks.networks import Problem
from benchmarks.spectra import check
from benchmarks.timing import Effort, take_turns
from fisher_jax import startup
from fisher_jax.curvature import Categorical, squared_gradient_norms

# Flax's; PyTorch's is 1e-5.
_EPSILON = 1e-6


class BlockTwin(nn.Module):
    """The twin of ``gpt.Block``."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Builds the layers."""
        super().__init__()
        self.num_heads = num_heads
        self.before, self.after = (nn.LayerNorm(width, _EPSILON) for _ in range(2))
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.wide, self.narrow = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [B, T, D] to the same."""
        normal = self.before(hidden)
        heads = [
            layer(normal).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        scores = heads[0] @ heads[1].transpose(2, 3) / heads[0].shape[-1] ** 0.5
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        hidden = hidden + self.out((weights @ heads[2]).transpose(1, 2).flatten(2))
        wide = functional.gelu(self.wide(self.after(hidden)), approximate="tanh")
        return hidden + self.narrow(wide)


class GPTTwin(nn.Module):
    """The twin of ``gpt.GPT``, its parameters copied."""

    def __init__(self, problem: Problem) -> None:
        """Builds the layers and fills them."""
        super().__init__()
        model, params = problem.model, problem.params
        self.table = nn.Embedding(model.vocabulary, model.width)
        self.positions = nn.Embedding(model.num_positions, model.width)
        self.blocks = nn.Sequential(
            *(BlockTwin(model.width, model.num_heads) for _ in range(model.depth))
        )
        self.last = nn.LayerNorm(model.width, _EPSILON)
        # A layer, as Opacus hooks layers.
        self.attend = nn.Linear(model.width, model.vocabulary, bias=False)
        self.attend.weight = self.table.weight
        _fill(self.table, {"weight": params["Embed_0"]["embedding"]})
        _fill(self.positions, {"weight": params["positions"]})
        _fill_norm(self.last, params["LayerNorm_0"])
        for number, block in enumerate(self.blocks):
            ours = params[f"Block_{number}"]
            attention = ours["MultiHeadDotProductAttention_0"]
            for name in ("query", "key", "value", "out"):
                _fill_dense(getattr(block, name), attention[name], model.width)
            _fill_dense(block.wide, ours["Dense_0"], model.width)
            _fill_dense(block.narrow, ours["Dense_1"], 4 * model.width)
            _fill_norm(block.before, ours["LayerNorm_0"])
            _fill_norm(block.after, ours["LayerNorm_1"])

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [B, T] to logits [B, T, C]."""
        places = torch.arange(tokens.shape[1]).expand(tokens.shape)
        hidden = self.blocks(self.table(tokens) + self.positions(places))
        return self.attend(self.last(hidden))


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


@torch.no_grad()
def _fill(module: nn.Module, arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        parameter = getattr(module, name)
        parameter.copy_(_tensor(array).reshape(parameter.shape))


def _fill_dense(layer: nn.Module, params: Any, rows: int) -> None:
    kernel = np.array(params["kernel"]).reshape(rows, -1).T
    _fill(layer, {"weight": kernel, "bias": params["bias"]})


def _fill_norm(layer: nn.Module, params: Any) -> None:
    _fill(layer, {"weight": params["scale"], "bias": params["bias"]})


def norms_by_vmap(problem: Problem) -> Callable[[], Tensor]:
    """‖gradient of an example's loss, summed over positions‖² [B] by vmap of grad."""
    model = GPTTwin(problem)
    params = {name: p.detach() for name, p in model.named_parameters()}
    inputs, labels = (_tensor(a).long() for a in (problem.inputs, problem.labels))

    def loss(params: dict[str, Tensor], tokens: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, params, (tokens[None],))
        return functional.cross_entropy(logits[0], label, reduction="sum")

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def norms() -> Tensor:
        gradients = each(params, inputs, labels)
        return sum(g.flatten(1).square().sum(1) for g in gradients.values())

    return norms


def norms_by_opacus(problem: Problem) -> Callable[[], Tensor]:
    """The same from the gradients per example that Opacus' hooks leave."""
    model = GradSampleModule(GPTTwin(problem), loss_reduction="sum")
    inputs, labels = (_tensor(a).long() for a in (problem.inputs, problem.labels))

    def norms() -> Tensor:
        model.zero_grad()
        with torch_peers.without_hook_warnings():
            logits = model(inputs).flatten(0, 1)
            functional.cross_entropy(
                logits, labels.flatten(), reduction="sum"
            ).backward()
        samples = [p.grad_sample for p in model.parameters()]
        return sum(s.flatten(1).square().sum(1) for s in samples)

    return norms


def calls(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Our gradient and norms, and PyTorch's norms, after a comparison of values."""

    def loss(params: Any) -> Any:
        logits = problem.logits_fn(params, problem.inputs)
        return Categorical().loss(logits, problem.labels).sum(axis=1).mean()

    def norms(params: Any) -> Any:
        return squared_gradient_norms(
            problem.logits_fn, params, problem.inputs, problem.labels
        )

    gradient, ours = jax.jit(jax.grad(loss)), jax.jit(norms)
    theirs = {
        "PyTorch, vmap(grad)": norms_by_vmap(problem),
        "Opacus, per-example": norms_by_opacus(problem),
    }
    for name, peer in theirs.items():
        check(f"{name} of the GPT", ours(problem.params), peer())
    return {
        "our gradient": lambda: jax.block_until_ready(gradient(problem.params)),
        "ours, norms": lambda: jax.block_until_ready(ours(problem.params)),
        **theirs,
    }


def main() -> None:
    """Measures and prints."""
    startup.keep_convolutions_off_ynnpack()
    torch.set_num_threads(2)
    found = calls(gpt())
    times = take_turns(found, Effort(1.0, 3, 3), time.process_time)
    for name in found:
        ratio = times.ratio(name, "our gradient").median
        print(f"{name}: {ratio:.2f} of our gradient")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"largest memory of the process: {peak:.1f} GiB")


if __name__ == "__main__":
    main()
