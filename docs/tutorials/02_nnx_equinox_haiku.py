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
# # 2. The same with nnx, Equinox and Haiku
#
# Traces and penalties need only `logits_fn(params, inputs)`, and `params` may be any
# pytree. This is how it looks in three other frameworks, each with a training loop in
# its own style. Define `logits_fn` once, so that it is compiled once.

# %%
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from fisher_jax.curvature import fisher_and_hessian_trace
from fisher_jax.penalties import add_penalty, fisher_penalty

plt.style.use("fisher_jax.report.paper")

digits = load_digits()
images = (digits.data.astype(np.float32) - 4.9) / 6.0
labels = digits.target.astype(np.int32)
batches = np.random.default_rng(0).permutation(1750).reshape(-1, 50)
probe_inputs, probe_labels = images[:200], labels[:200]
NUM_EPOCHS, WIDTH = 10, 64


def cross_entropy(logits, targets):
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def measure(logits_fn, params, epoch):
    traces = fisher_and_hessian_trace(
        logits_fn,
        params,
        probe_inputs,
        probe_labels,
        jax.random.fold_in(jax.random.key(1), epoch),
        num_draws=2,
    )
    return [float(value) for trace in traces for value in trace]


# %% [markdown]
# ## Flax nnx
#
# `nnx.split` splits a model into its graph, which does not change, and its state, the
# parameters.


# %%
class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, inputs):
        return self.out(nnx.relu(self.hidden(inputs)))


model = Classifier(nnx.Rngs(0))
graph, _ = nnx.split(model)


def nnx_logits(params, inputs):
    return nnx.merge(graph, params)(inputs)


optimizer = nnx.Optimizer(model, optax.sgd(0.01, momentum=0.9), wrt=nnx.Param)


@nnx.jit
def nnx_step(model, optimizer, inputs, targets):
    gradient = nnx.grad(lambda m: cross_entropy(m(inputs), targets))(model)
    optimizer.update(model, gradient)


nnx_history = []
for epoch in range(NUM_EPOCHS + 1):
    nnx_history.append(measure(nnx_logits, nnx.state(model, nnx.Param), epoch))
    for rows in batches:
        nnx_step(model, optimizer, images[rows], labels[rows])

# %% [markdown]
# ## Equinox
#
# The model is itself a pytree and takes one example. `eqx.partition` separates its
# arrays, the parameters, from the rest.


# %%
def equinox_model(key):
    return eqx.nn.MLP(64, 10, WIDTH, depth=1, activation=jax.nn.relu, key=key)


params, static = eqx.partition(equinox_model(jax.random.key(0)), eqx.is_inexact_array)


def equinox_logits(params, inputs):
    return jax.vmap(eqx.combine(params, static))(inputs)


transformation = optax.sgd(0.01, momentum=0.9)
state = transformation.init(params)


@eqx.filter_jit
def equinox_step(params, state, inputs, targets):
    gradient = eqx.filter_grad(
        lambda p: cross_entropy(equinox_logits(p, inputs), targets)
    )(params)
    updates, state = transformation.update(gradient, state)
    return eqx.apply_updates(params, updates), state


equinox_history = []
for epoch in range(NUM_EPOCHS + 1):
    equinox_history.append(measure(equinox_logits, params, epoch))
    for rows in batches:
        params, state = equinox_step(params, state, images[rows], labels[rows])

# %% [markdown]
# ## Haiku
#
# `hk.transform` already gives a pure function. This loop also trains with the Fisher
# Penalty: one line in the chain and one argument (the third tutorial says more).


# %%
def forward(inputs):
    hidden = jax.nn.relu(hk.Linear(WIDTH)(inputs))
    return hk.Linear(10)(hidden)


network = hk.without_apply_rng(hk.transform(forward))


def haiku_run(alpha):
    params = network.init(jax.random.key(0), images[:1])
    optimizer = optax.chain(add_penalty(alpha), optax.sgd(0.01, momentum=0.9))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, inputs, targets, key):
        gradient = jax.grad(lambda p: cross_entropy(network.apply(p, inputs), targets))(
            params
        )
        updates, state = optimizer.update(
            gradient,
            state,
            params,
            penalty_fn=lambda p: fisher_penalty(network.apply, p, inputs, key),
        )
        return optax.apply_updates(params, updates), state

    history = []
    for epoch in range(NUM_EPOCHS + 1):
        history.append(measure(network.apply, params, epoch))
        for number, rows in enumerate(batches):
            key = jax.random.fold_in(jax.random.key(2), epoch * len(batches) + number)
            params, state = step(params, state, images[rows], labels[rows], key)
    return history


# %%
histories = {
    "nnx": nnx_history,
    "Equinox": equinox_history,
    "Haiku": haiku_run(0.0),
    "Haiku, FP, α = 0.5": haiku_run(0.5),
}
figure, panels = plt.subplots(1, 2, figsize=(5.4, 2.2), sharey=True)
for label, history in histories.items():
    fisher, fisher_sem, hessian, hessian_sem = np.array(history).T
    panels[0].errorbar(range(NUM_EPOCHS + 1), fisher, fisher_sem, label=label)
    panels[1].errorbar(range(NUM_EPOCHS + 1), hessian, hessian_sem, elinewidth=0.7)
for panel, title in zip(panels, ("Tr(F)", "Tr(H)"), strict=True):
    panel.set(title=title, xlabel="epoch")
panels[0].legend()
plt.show()

# %% [markdown]
# The three frameworks initialise their layers differently and agree soon after. The
# network has ReLUs only, so Tr(H) is Tr(F) up to the errors of its 30 probes. The
# penalty keeps both down while they are high.
#
# With the same parameters, a network gives the same answer in every framework:

# %%
kernels = params.layers[0].weight.T, params.layers[1].weight.T
biases = params.layers[0].bias, params.layers[1].bias
as_haiku = {
    name: {"w": kernel, "b": bias}
    for name, kernel, bias in zip(("linear", "linear_1"), kernels, biases, strict=True)
}
ours, theirs = (
    fisher_and_hessian_trace(f, p, probe_inputs, probe_labels, jax.random.key(3))
    for f, p in ((equinox_logits, params), (network.apply, as_haiku))
)
print(f"Tr(F): {ours.fisher.mean:.4f} in Equinox, {theirs.fisher.mean:.4f} in Haiku")

# %% tags=["check"]
assert jnp.allclose(ours.fisher.mean, theirs.fisher.mean, rtol=1e-4)
