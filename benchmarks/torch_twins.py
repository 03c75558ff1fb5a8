"""The networks of ``networks.py`` in PyTorch, with the same parameters and batch."""

import itertools
from collections import OrderedDict
from typing import NamedTuple

import jax
import numpy as np
import torch
from jaxtyping import PyTree
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import MLP, NUM_CLASSES, Problem
from fisher_jax.models import SimpleCNN, WideResNet
from fisher_jax.models.resnet import WIDTHS, blocks_per_stage
from fisher_jax.models.simple_cnn import PADDINGS


class Twin(NamedTuple):
    """A PyTorch module that computes what the Flax one does, and the batch.

    Attributes:
        model: maps images [B, channels, H, W] to logits.
        inputs: the images of the problem.
        labels: its labels.
    """

    model: nn.Module
    inputs: Tensor
    labels: Tensor

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters in the module's order."""
        return list(self.model.parameters())

    def loss(self, labels: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of the batch."""
        labels = self.labels if labels is None else labels
        return functional.cross_entropy(self.model(self.inputs), labels)


def make_twin(problem: Problem) -> Twin:
    """The twin of a problem on JAX's device, its parameters and batch copied."""
    channels, size = problem.inputs.shape[-1], problem.inputs.shape[1]
    if isinstance(problem.model, SimpleCNN):
        model = simple_cnn(size, channels)
    elif isinstance(problem.model, WideResNet):
        model = WideResNetTwin(problem.model.depth, problem.model.width, channels)
    elif isinstance(problem.model, MLP):
        model = mlp(problem.inputs[0].size, problem.model.widths)
    else:
        raise TypeError(f"no PyTorch twin of {type(problem.model).__name__}")
    copy_parameters(problem.params, model)
    images = np.array(problem.inputs).transpose(0, 3, 1, 2)
    inputs = torch.from_numpy(np.ascontiguousarray(images))
    labels = torch.from_numpy(np.array(problem.labels)).long()
    device = torch_device()
    return Twin(model.to(device), inputs.to(device), labels.to(device))


def torch_device() -> str:
    """PyTorch's name of the device that JAX computes on."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


@torch.no_grad()
def copy_parameters(params: PyTree, model: nn.Module) -> None:
    """Fills a module from Flax parameters whose modules have the same names."""
    for name, parameter in model.named_parameters():
        *path, leaf = name.split(".")
        node = params
        for part in path:
            node = node[part]
        value = np.array(node["kernel" if leaf == "weight" else leaf])
        if leaf == "weight":
            # Flax: [height, width, in, out] and [in, out]; PyTorch: out, in, ... .
            value = np.moveaxis(np.swapaxes(value, -1, -2), (-2, -1), (0, 1))
        assert parameter.shape == value.shape, name
        parameter.copy_(torch.from_numpy(value.copy()))


class FlattenLastChannels(nn.Module):
    """Flattens in the order of Flax, channels last."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [B, channels, H, W] to [B, H W channels]."""
        return hidden.permute(0, 2, 3, 1).flatten(1)


def simple_cnn(size: int, channels: int) -> nn.Sequential:
    """The twin of ``fisher_jax.models.SimpleCNN`` for square images."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    edges = PADDINGS["keras" if size >= 10 else "same"]
    for block, features in enumerate((32, 64)):
        for index, edge in enumerate(edges):
            number = 2 * block + index
            padding = 1 if edge == "SAME" else 0
            conv = nn.Conv2d(channels, features, 3, padding=padding)
            layers[f"Conv_{number}"] = conv
            layers[f"conv_relu_{number}"] = nn.ReLU()
            size, channels = size + 2 * padding - 2, features
        layers[f"pool_{block}"] = nn.MaxPool2d(2)
        size //= 2
    layers["flatten"] = FlattenLastChannels()
    layers["Dense_0"] = nn.Linear(size * size * channels, 128)
    layers["relu"] = nn.ReLU()
    layers["Dense_1"] = nn.Linear(128, NUM_CLASSES)
    return nn.Sequential(layers)


def mlp(pixels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """The twin of ``networks.MLP`` with ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=FlattenLastChannels())
    sizes = (pixels, *widths, NUM_CLASSES)
    for index, (features_in, features_out) in enumerate(itertools.pairwise(sizes)):
        layers[f"Dense_{index}"] = nn.Linear(features_in, features_out)
        if index < len(widths):
            layers[f"relu_{index}"] = nn.ReLU()
    return nn.Sequential(layers)


class SkipInit(nn.Module):
    """Multiplies by one learnt scalar."""

    def __init__(self) -> None:
        """Starts at 0, as SkipInit does."""
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, branch: Tensor) -> Tensor:
        """Returns the scaled branch."""
        return self.scale * branch


class BlockTwin(nn.Module):
    """The twin of ``fisher_jax.models.wide_resnet.PreactivatedBlock``."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        """Builds the layers; a shortcut only where the shape changes."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.skip_init = SkipInit()
        self.shortcut = None
        if stride > 1 or channels != features:
            self.shortcut = nn.Conv2d(channels, features, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns shortcut + branch."""
        hidden = functional.relu(inputs)
        shortcut = inputs if self.shortcut is None else self.shortcut(hidden)
        hidden = functional.relu(self.conv1(hidden))
        return shortcut + self.skip_init(self.conv2(hidden))


class WideResNetTwin(nn.Module):
    """The twin of ``fisher_jax.models.WideResNet`` with SkipInit."""

    def __init__(self, depth: int, width: int, channels: int) -> None:
        """Builds the layers under the names that Flax gives them."""
        super().__init__()
        self.stem = nn.Conv2d(channels, WIDTHS[0], 3, padding=1)
        self.block_names = []
        channels = WIDTHS[0]
        for stage, features in enumerate(WIDTHS):
            for block in range(blocks_per_stage(depth)):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                self.add_module(name, BlockTwin(channels, features * width, stride))
                self.block_names.append(name)
                channels = features * width
        self.classifier = nn.Linear(channels, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits."""
        hidden = self.stem(inputs)
        for name in self.block_names:
            hidden = self.get_submodule(name)(hidden)
        return self.classifier(functional.relu(hidden).mean(dim=(2, 3)))
