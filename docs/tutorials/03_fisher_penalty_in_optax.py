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
# # 3. The Fisher Penalty in an optax loop
#
# The Fisher Penalty (FP) trains on
#
# $$\text{loss} = \text{mean cross-entropy} + \alpha \, \Big\| \frac1B \sum_i
# g(x_i, \hat y_i) \Big\|^2, \qquad \hat y_i \sim p_\theta(y \mid x_i),$$
#
# the squared norm of the minibatch's mean gradient on labels that are drawn from the
# model. Its gradient is recomputed every f = 10 steps, and the latest one is added in
# every step in between (equations 3 and 5 of Jastrzębski et al., 2021).
#
# With optax this takes two lines: `add_penalty` in the chain, `penalty_fn` in `update`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from fisher_jax.models.simple_cnn import SimpleCNN
from fisher_jax.penalties import add_penalty, fisher_penalty
from fisher_jax.startup import keep_convolutions_off_ynnpack

plt.style.use("fisher_jax.report.paper")
# As main.py does: on CPU, jax 0.10 computes convolutions slowly and otherwise, if not.
keep_convolutions_off_ynnpack()

# %% [markdown]
# ## Your own loop
#
# We use the 1797 digits of scikit-learn, 1000 of them for training, with a quarter of
# their labels replaced by uniform draws. Any `logits_fn(params, inputs)` will do.

# %%
digits = load_digits()
images = digits.images[..., None].astype(np.float32)
images = (images - images.mean()) / images.std()
order = np.random.default_rng(0).permutation(len(images))
train_images, test_images = np.split(images[order], [1000])
train_labels, test_labels = np.split(digits.target[order].astype(np.int32), [1000])
draws = np.random.default_rng(1)
replaced = draws.random(1000) < 0.25
noisy_labels = np.where(replaced, draws.integers(0, 10, 1000), train_labels)
noisy_labels = noisy_labels.astype(np.int32)
wrong = noisy_labels != train_labels

model = SimpleCNN(num_classes=10)


def logits_fn(params, inputs):
    return model.apply({"params": params}, inputs)


def loss_fn(params, inputs, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits_fn(params, inputs), labels
    )
    return losses.mean()


# %% [markdown]
# Except for `penalty_fn`, `step` below is an ordinary training step. The penalty is a
# function of the parameters, so any penalty and any batch will do: half of the batch,
# `draw="rademacher"` for RFP, `gradient_penalty`, or your own. The gradient that is
# kept lives in the optimizer's state, and is saved, restored and sharded with it.


# %%
def make_step(optimizer):
    @jax.jit
    def step(params, state, inputs, labels, key):
        gradient = jax.grad(loss_fn)(params, inputs, labels)
        updates, state = optimizer.update(
            gradient,
            state,
            params,
            penalty_fn=lambda p: fisher_penalty(logits_fn, p, inputs, key),
        )
        return optax.apply_updates(params, updates), state

    return step


@jax.jit
def accuracy(params, inputs, labels):
    return jnp.mean(jnp.argmax(logits_fn(params, inputs), axis=-1) == labels)


def train(alpha, num_epochs=60, batch_size=125):
    optimizer = optax.chain(add_penalty(alpha), optax.sgd(0.01, momentum=0.9))
    params = model.init(jax.random.key(0), train_images[:1])["params"]
    state, step = optimizer.init(params), make_step(optimizer)
    random = np.random.default_rng(2)
    history = []
    for epoch in range(num_epochs):
        for rows in random.permutation(1000).reshape(-1, batch_size):
            key = jax.random.fold_in(jax.random.key(3), int(state[0].step))
            params, state = step(
                params, state, train_images[rows], noisy_labels[rows], key
            )
        history.append(
            {
                "epoch": epoch + 1,
                "test": accuracy(params, test_images, test_labels),
                "memorised": accuracy(params, train_images[wrong], noisy_labels[wrong]),
                # B times the penalty's value estimates Tr(F), without another pass.
                "fisher": batch_size * state[0].penalty_value,
            }
        )
    return {name: [float(row[name]) for row in history] for name in history[0]}


runs = {"baseline, α = 0": train(0.0), "FP, α = 0.1": train(0.1)}

# %%
figure, panels = plt.subplots(1, 3, figsize=(6.75, 2.1))
titles = {
    "test": "Test accuracy",
    "memorised": "Wrong labels that are memorised",
    "fisher": "Tr(F), B times the penalty's value",
}
for panel, (name, title) in zip(panels, titles.items(), strict=True):
    for label, run in runs.items():
        panel.plot(run["epoch"], run[name], label=label)
    panel.set(title=title, xlabel="epoch")
for panel in panels[:2]:
    panel.set_ylim(0, 1.02)
panels[2].set_yscale("log")
panels[1].legend(loc="upper left")
plt.show()

# %% tags=["check"]
baseline, penalised = runs.values()
assert penalised["memorised"][-1] < baseline["memorised"][-1] / 2
assert max(penalised["fisher"]) < max(baseline["fisher"])

# %% [markdown]
# Without the penalty Tr(F) explodes and the network memorises wrong labels.
# (With α = 0 the penalty is still computed every tenth step, so its Tr(F) is known. The
# value of one minibatch is a noisy estimate: report `fisher_trace`.)
#
# `main.py` trains with the same `add_penalty`: on the same batches and with the same
# keys, a loop like this one takes the same steps. `fisher_jax.train.load_run(workdir)`
# returns a run's network and parameters, to continue in your own loop.
