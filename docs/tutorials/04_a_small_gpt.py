# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. A small GPT: Tr(F) layer by layer, and a penalty on it
#
# Nothing so far is specific to images, or to one output per example. Here is a
# transformer with learned positions, layer normalisation and an embedding tied to the
# output, in nnx and in linen. It learns to predict the next character of the reference
# manual that ships with Python.

# %%
import pydoc_data.topics

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from fisher_jax.curvature import (
    Categorical,
    fisher_trace,
    layer_fisher_traces,
)
from fisher_jax.penalties import add_penalty, fisher_penalty

plt.style.use("fisher_jax.report.paper")

topics = pydoc_data.topics.topics
text = "\n".join(topics[name] for name in sorted(topics)[:20])
alphabet = sorted(set(text))
tokens = np.array([alphabet.index(character) for character in text])
POSITIONS, WIDTH, HEADS, DEPTH, BATCH = 32, 48, 4, 3, 16
print(f"{len(tokens)} characters of {len(alphabet)} kinds")


def batch_of(seed):
    """Random places in the text: characters, and the one after each."""
    first = np.random.default_rng(seed).integers(0, len(tokens) - POSITIONS, BATCH)
    rows = first[:, None] + np.arange(POSITIONS + 1)
    return jnp.asarray(tokens[rows][:, :-1]), jnp.asarray(tokens[rows][:, 1:])


# %% [markdown]
# ## In nnx


# %%
class Block(nnx.Module):
    """Attention to what came before, then two dense layers."""

    def __init__(self, rngs):
        self.norm_before = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.norm_between = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.wide = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, h):
        mask = nnx.make_causal_mask(h[..., 0])
        h = h + self.attention(self.norm_before(h), mask=mask)
        return h + self.narrow(nnx.gelu(self.wide(self.norm_between(h))))


class GPT(nnx.Module):
    """Logits [B, positions, characters]."""

    def __init__(self, rngs):
        small = nnx.initializers.normal(0.02)
        self.embedding = nnx.Embed(
            len(alphabet), WIDTH, embedding_init=small, rngs=rngs
        )
        self.positions = nnx.Param(small(rngs(), (POSITIONS, WIDTH)))
        self.blocks = nnx.Sequential(*[Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens):
        h = self.embedding(tokens) + self.positions[...]
        return self.embedding.attend(self.norm(self.blocks(h)))


graph, start, others = nnx.split(GPT(nnx.Rngs(0)), nnx.Param, ...)


def logits_fn(params, tokens):
    return nnx.merge(graph, params, others)(tokens)


# %% [markdown]
# An example is a sequence: its loss is the SUM over positions, here of characters, and
# its Fisher matrix is that of the whole sequence. Everything else is as for images:
# the penalty is one more transformation in front of the optimizer.


# %%
def train(coefficient, num_steps=160, watched=20):
    optimizer = optax.chain(add_penalty(coefficient), optax.adam(2e-3))

    @jax.jit
    def step(params, state, tokens, targets, key):
        def loss_fn(params):
            losses = Categorical().loss(logits_fn(params, tokens), targets)
            return losses.sum(axis=1).mean()

        def penalty_fn(params):
            return fisher_penalty(
                logits_fn, params, tokens, key, draw="rademacher", num_groups=BATCH
            )

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(
            gradient, state, params, penalty_fn=penalty_fn
        )
        return optax.apply_updates(params, updates), state, loss / POSITIONS

    @jax.jit
    def measure(params, key):
        return layer_fisher_traces(logits_fn, params, batch_of(0)[0], key)

    params, state, records = start, optimizer.init(start), []
    for index in range(num_steps + 1):
        key = jax.random.fold_in(jax.random.key(1), index)
        if index % watched == 0:
            traces = measure(params, key)
        params, state, loss = step(params, state, *batch_of(index + 1), key)
        if index % watched == 0:
            records.append((index, float(loss), by_part(traces)))
    return params, records


# %% [markdown]
# `layer_fisher_traces` gives a number for each array of parameters, in their own tree.
# They add up to Tr(F), so you can sum them over any part of the network. The embedding
# has both its gradients in one array, as the input and as the output layer.


# %%
def by_part(traces):
    parts = {}
    for path, trace in jax.tree_util.tree_leaves_with_path(traces):
        names = [str(getattr(k, "key", getattr(k, "name", k))) for k in path]
        part = names[0] if names[0] in ("embedding", "positions") else names[-3]
        part = {"wide": "dense", "narrow": "dense"}.get(part, part)
        part = "layer norms" if "norm" in "".join(names) else part
        part = "attention" if "attention" in names else part
        parts[part] = parts.get(part, 0.0) + float(trace)
    return parts


runs = {"plain": train(0.0)[1], "RFP": train(0.01)[1]}

# %%
parts = list(runs["plain"][0][2])
figure, panels = plt.subplots(1, 3, figsize=(6.75, 2.2))
for color, (name, records) in enumerate(runs.items()):
    panels[0].plot([r[0] for r in records], [r[1] for r in records], label=name)
    for part in parts:
        panels[1 + color].semilogy(
            [r[0] for r in records], [r[2][part] for r in records], label=part
        )
    panels[1 + color].set_title(f"Tr(F) by part, {name}")
panels[0].set_title("Loss per character")
panels[0].legend()
panels[2].legend()
panels[2].sharey(panels[1])
for panel in panels:
    panel.set_xlabel("step")
plt.show()

totals = {name: [sum(r[2].values()) for r in records] for name, records in runs.items()}
for name, values in totals.items():
    last = runs[name][-1]
    print(f"{name}: Tr(F) {values[-1]:.0f}, loss {last[1]:.2f} at the end")
print({part: round(value) for part, value in runs["plain"][-1][2].items()})
assert totals["RFP"][-1] < totals["plain"][-1] / 2

# %% [markdown]
# The loss per character is a mean over positions, Tr(F) a sum over them and over all
# parameters. It first falls, as the network learns how frequent characters are, and
# grows as it learns what follows what; it is not spread evenly. With the penalty it
# stays where it was, and the loss falls more slowly: look at what α costs you.
#
# ## In linen, rematerialised
#
# Any other definition of the network will do. This one computes each block again in the
# backward pass, as long sequences require.


# %%
class LinenBlock(nn.Module):
    """As above."""

    @nn.compact
    def __call__(self, h):
        mask = nn.make_causal_mask(h[..., 0])
        h = h + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(h), mask=mask)
        width = h.shape[-1]
        return h + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(h))))


class LinenGPT(nn.Module):
    """As above."""

    width: int = WIDTH

    @nn.compact
    def __call__(self, tokens):
        embedding = nn.Embed(len(alphabet), self.width)
        shape = (POSITIONS, self.width)
        h = embedding(tokens) + self.param("places", nn.initializers.normal(), shape)
        for _ in range(DEPTH):
            h = nn.remat(LinenBlock)()(h)
        return embedding.attend(nn.LayerNorm()(h))


model = LinenGPT()
inputs = batch_of(0)[0]
params = model.init(jax.random.key(0), inputs)
estimate = jax.jit(
    lambda params: fisher_trace(model.apply, params, inputs, jax.random.key(1))
)(params)
print(f"Tr(F) = {estimate.mean:.0f} ± {estimate.sem:.0f}")

# %% [markdown]
# No per-example gradient is stored: the norm of a dense layer's gradient comes from
# what goes into the layer and what comes back to it, even in a rematerialised block.
# Here is what XLA needs for a wider network, compared with one gradient per example.

# %%
wide = LinenGPT(width=512)
wide_params = jax.eval_shape(wide.init, jax.random.key(0), inputs)


def trace(params, tokens):
    return fisher_trace(wide.apply, params, tokens, jax.random.key(1)).mean


def trace_by_vmap(params, tokens):
    def squared_norm(tokens, key):
        sampled = jax.random.categorical(key, wide.apply(params, tokens[None]))

        def loss(params):
            return Categorical().loss(wide.apply(params, tokens[None]), sampled).sum()

        return optax.tree.norm(jax.grad(loss)(params), squared=True)

    keys = jax.random.split(jax.random.key(1), len(tokens))
    return jax.vmap(squared_norm)(tokens, keys).mean()


def megabytes(function):
    shape = jax.ShapeDtypeStruct((64, POSITIONS), jnp.int32)
    compiled = jax.jit(function).lower(wide_params, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


ours, theirs = megabytes(trace), megabytes(trace_by_vmap)
print(f"{ours:.0f} MiB for 64 sequences, {theirs:.0f} with vmap(grad)")
assert ours < theirs / 2
