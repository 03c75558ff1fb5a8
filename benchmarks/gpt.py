"""A GPT: learned positions, layer normalisation, a table tied to the output."""

from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from benchmarks.networks import Problem


class Block(nn.Module):
    """Attention to what came before, then two dense layers."""

    num_heads: int

    @nn.compact
    def __call__(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns what the block makes of every position."""
        mask = nn.make_causal_mask(hidden[..., 0])
        attention = nn.MultiHeadDotProductAttention(self.num_heads)
        hidden = hidden + attention(nn.LayerNorm()(hidden), mask=mask)
        wide = nn.gelu(nn.Dense(4 * hidden.shape[-1])(nn.LayerNorm()(hidden)))
        return hidden + nn.Dense(hidden.shape[-1])(wide)


class GPT(nn.Module):
    """Logits of the next token at every position."""

    vocabulary: int = 8000
    num_positions: int = 128
    width: int = 256
    depth: int = 6
    num_heads: int = 4

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B T"], train: bool = False
    ) -> Float[Array, "B T C"]:
        """Returns logits; ``train`` changes nothing in this network."""
        del train
        table = nn.Embed(self.vocabulary, self.width)
        shape = (self.num_positions, self.width)
        places = self.param("positions", nn.initializers.normal(0.02), shape)
        hidden = table(tokens) + places
        for _ in range(self.depth):
            hidden = Block(self.num_heads)(hidden)
        return table.attend(nn.LayerNorm()(hidden))


def gpt(batch: int = 32, **sizes: Any) -> Problem:
    """A GPT and random tokens."""
    model = GPT(**sizes)
    init_key, token_key = jax.random.split(jax.random.key(0))
    shape = (batch, model.num_positions + 1)
    tokens = jax.random.randint(token_key, shape, 0, model.vocabulary)
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    params = jax.jit(model.init)(init_key, inputs[:1])["params"]
    title = (
        f"GPT, {model.depth} layers of {model.width}, {model.vocabulary} tokens, "
        f"{model.num_positions} positions, batch {batch}"
    )
    return Problem("GPT", title, model, params, inputs, labels)
