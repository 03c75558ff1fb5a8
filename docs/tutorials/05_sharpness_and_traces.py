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
# # 5. Sharpness, Tr(F) and Tr(H) on one run: what differs
#
# Three numbers are called curvature in papers on generalization:
#
# - **sharpness**, the largest eigenvalue of the Hessian of the training loss;
# - **Tr(H)**, the sum of all its eigenvalues;
# - **Tr(F)**, the trace of the Fisher information matrix, the mean over examples of
#   ‖g(x, ŷ)‖² with labels ŷ drawn from the model.
#
# Here we measure all three on one run: a small network with tanh units, trained by
# gradient descent on the whole training set, without momentum, on digits of which a
# quarter have random labels.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from fisher_jax.curvature import (
    fisher_trace,
    hessian_trace,
    largest_eigenvalue,
    largest_fisher_eigenvalue,
)

plt.style.use("fisher_jax.report.paper")

digits = load_digits()
rows = np.random.default_rng(0).permutation(len(digits.data))[:400]
inputs = jnp.asarray((digits.data[rows] - 4.9) / 6.0, jnp.float32)
labels = jnp.asarray(digits.target[rows], jnp.int32)
replaced = jax.random.bernoulli(jax.random.key(2), 0.25, labels.shape)
labels = jnp.where(
    replaced, jax.random.randint(jax.random.key(3), (400,), 0, 10), labels
)


def logits_fn(params, inputs):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"])
    return hidden @ params["v"] + params["c"]


def loss_fn(params):
    return optax.softmax_cross_entropy_with_integer_labels(
        logits_fn(params, inputs), labels
    ).mean()


keys = jax.random.split(jax.random.key(0))
start = {
    "w": jax.random.normal(keys[0], (64, 48)) / 8,
    "b": jnp.zeros(48),
    "v": jax.random.normal(keys[1], (48, 10)) / 48**0.5,
    "c": jnp.zeros(10),
}

# %% [markdown]
# `fisher_trace(estimator="exact")` sums over the classes and needs no random numbers;
# with ten classes that is cheap. The eigenvalues come from Lanczos iterations.


# %%
@jax.jit
def measure(params, key):
    trace_key, sharpness_key, fisher_key = jax.random.split(key, 3)
    hessian = hessian_trace(loss_fn, params, trace_key, num_probes=200)
    return {
        "loss": loss_fn(params),
        "fisher": fisher_trace(logits_fn, params, inputs, estimator="exact").mean,
        "hessian": hessian.mean,
        "hessian_sem": hessian.sem,
        "sharpness": largest_eigenvalue(loss_fn, params, sharpness_key).value,
        "fisher_sharpness": largest_fisher_eigenvalue(
            logits_fn, params, inputs, fisher_key
        ).value,
    }


LEARNING_RATE = 0.6


@jax.jit
def descend(params):
    gradient = jax.grad(loss_fn)(params)
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)


params, records = start, []
for step in range(801):
    if step % 10 == 0:
        key = jax.random.fold_in(jax.random.key(1), step)
        records.append({"step": step, **measure(params, key)})
    params = descend(params)
run = {name: np.array([float(r[name]) for r in records]) for name in records[0]}

# %%
figure, panels = plt.subplots(1, 3, figsize=(6.75, 2.2))
panels[0].semilogy(run["step"], run["loss"])
panels[0].set(title="Training loss")
panels[1].plot(run["step"], run["sharpness"], label="H: sharpness")
panels[1].plot(run["step"], run["fisher_sharpness"], label="F")
panels[1].axhline(2 / LEARNING_RATE, color="0.4", linestyle=":", label="2 / η")
panels[1].set(title="Largest eigenvalue", ylim=(0, None))
panels[1].legend(loc="lower left")
panels[2].errorbar(
    run["step"], run["hessian"], run["hessian_sem"], elinewidth=0.7, label="Tr(H)"
)
panels[2].plot(run["step"], run["fisher"], label="Tr(F)")
panels[2].set(title="Traces", ylim=(0, None))
panels[2].legend()
for panel in panels:
    panel.set_xlabel("step")
plt.show()

# %% [markdown]
# **The learning rate holds sharpness in place.** It rises until it reaches 2/η, where
# gradient descent is no longer stable along the first eigenvector, and hovers there
# (Cohen et al., 2021), until late in training the curvature of the cross-entropy itself
# fades. The largest eigenvalue of the Fisher follows, a tenth lower.
#
# **Nothing holds the traces.** They count all directions and keep rising while
# sharpness stays: as long as it is held, sharpness mostly reflects the learning rate.
#
# **Tr(H) is not Tr(F)** in this network. H = F + the mean of (∂ℓ/∂logit) · ∂²logit, and
# with tanh units the second term has a trace of its own; it fades with the residuals
# ∂ℓ/∂logit. With ReLUs that trace is zero: each logit is linear in one layer's weights
# at a time, and the two traces are the same number throughout training:

# %%
peak = int(run["fisher"].argmax())
print(f"largest eigenvalues at step {run['step'][peak]:.0f}:")
print(f"  {run['sharpness'][peak]:.2f} (H), {run['fisher_sharpness'][peak]:.2f} (F)")
print(f"traces: {run['hessian'][peak]:.1f} (H), {run['fisher'][peak]:.1f} (F)")


def relu_logits(params, inputs):
    hidden = jax.nn.relu(inputs @ params["w"] + params["b"])
    return hidden @ params["v"] + params["c"]


def relu_loss(params):
    return optax.softmax_cross_entropy_with_integer_labels(
        relu_logits(params, inputs), labels
    ).mean()


fisher = fisher_trace(relu_logits, params, inputs, estimator="exact").mean
hessian = hessian_trace(relu_loss, params, jax.random.key(4), num_probes=400)
print(f"with ReLUs: {hessian.mean:.1f} ± {hessian.sem:.1f} (H), {fisher:.1f} (F)")

# %% tags=["check"]
assert abs(hessian.mean - fisher) < 4 * hessian.sem
assert run["hessian"][peak] - run["fisher"][peak] > 10 * run["hessian_sem"][peak]

# %% [markdown]
# | | needs | cost | noise |
# |---|---|---|---|
# | Tr(F), one draw per example | logits | about one gradient | small |
# | Tr(F), exact | logits | as many backward passes as classes | none |
# | Tr(H), 30 probes | a loss, labels | 30 products with H | one probe's over √30 |
# | sharpness, 20 iterations | a loss, labels | 21 products with H | its residual |
#
# So Tr(F) can be watched at every epoch, or every step. Where the network is piecewise
# linear, it is the better Tr(H).
