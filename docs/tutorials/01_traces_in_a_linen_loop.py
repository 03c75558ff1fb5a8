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
# # 1. Tr(F) and Tr(H) in a Flax linen loop
#
# The trace of the Fisher information matrix, Tr(F), measures how sharply a network's
# predictions depend on its parameters. Jastrzębski et al. (2021) find that with a small
# learning rate it *explodes* early in training, and that this goes with poor
# generalization. Here we measure it in an ordinary training loop, together with the
# trace of the Hessian, Tr(H).
#
# All you need is a pure function `logits_fn(params, inputs)`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

from fisher_jax.curvature import fisher_and_hessian_trace

plt.style.use("fisher_jax.report.paper")

digits = load_digits()
images = digits.images[..., None].astype(np.float32)
images = (images - images.mean()) / images.std()
labels = digits.target.astype(np.int32)
order = np.random.default_rng(0).permutation(len(images))
train_rows, test_rows = order[:1000], order[1000:]


class Network(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Conv(16, (3, 3))(inputs))
        hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
        hidden = nn.relu(nn.Conv(32, (3, 3))(hidden))
        return nn.Dense(10)(hidden.reshape(hidden.shape[0], -1))


model = Network()


def logits_fn(params, inputs):
    return model.apply({"params": params}, inputs)


# %% [markdown]
# Any loop will do. One call gives both traces: Tr(F), the mean over examples of
# ‖g(x, ŷ)‖² with labels from the model, and Tr(H) of the mean cross-entropy with the
# true labels, by 30 random probes. Each has a `mean` and a standard error, `sem`. The
# probe examples stay the same during training.


# %%
def train(learning_rate, num_epochs=25, batch_size=50):
    params = model.init(jax.random.key(0), images[:1])["params"]
    optimizer = optax.sgd(learning_rate, momentum=0.9)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, inputs, targets):
        def loss_fn(p):
            return optax.softmax_cross_entropy_with_integer_labels(
                logits_fn(p, inputs), targets
            ).mean()

        updates, state = optimizer.update(jax.grad(loss_fn)(params), state)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def accuracy(params):
        predictions = jnp.argmax(logits_fn(params, images[test_rows]), axis=-1)
        return jnp.mean(predictions == labels[test_rows])

    probe = train_rows[:250]
    random = np.random.default_rng(1)
    history = []
    for epoch in range(num_epochs + 1):
        traces = fisher_and_hessian_trace(  # <- the addition to the loop
            logits_fn,
            params,
            images[probe],
            labels[probe],
            jax.random.fold_in(jax.random.key(2), epoch),
            num_draws=2,
        )
        history.append((*traces.fisher, *traces.hessian, accuracy(params)))
        for rows in random.permutation(train_rows).reshape(-1, batch_size):
            params, state = step(params, state, images[rows], labels[rows])
    return params, np.array(history)


runs = {f"learning rate {rate}": train(rate) for rate in (0.03, 0.001)}

# %%
figure, panels = plt.subplots(1, 3, figsize=(6.75, 2.1))
panels[1].sharey(panels[0])
for label, (_, history) in runs.items():
    fisher, fisher_sem, hessian, hessian_sem, accuracy = history.T
    epochs = np.arange(len(history))
    panels[0].errorbar(epochs, fisher, fisher_sem, elinewidth=0.7)
    panels[1].errorbar(epochs, hessian, hessian_sem, elinewidth=0.7)
    panels[2].plot(epochs, accuracy, label=label)
for panel, title in zip(panels, ("Tr(F)", "Tr(H)", "Test accuracy"), strict=True):
    panel.set(title=title, xlabel="epoch")
panels[2].legend(loc="lower right")
plt.show()

# %% [markdown]
# With the small learning rate Tr(F) rises early and falls only slowly. The bars are
# standard errors of the random draws, given the 250 examples: two draws per example
# for Tr(F), 30 probes for Tr(H). Four times as many halve the bars. (With
# `num_draws=1` we know only an upper bound for Tr(F), the spread over the examples.)
#
# In this network (ReLU, max-pooling) the two traces are the same number, whatever the
# labels (docs/theory.md), so Tr(F) is also the far more precise Tr(H):

# %%
in_errors = {
    label: (history[:, 2] - history[:, 0]) / np.hypot(history[:, 1], history[:, 3])
    for label, (_, history) in runs.items()
}
for label, values in in_errors.items():
    print(f"{label}: Tr(H) − Tr(F) = {values.std():.2f} standard errors on average")

# %% tags=["check"]
assert all(values.std() < 2 for values in in_errors.values())

# %% [markdown]
# ## Batch normalisation
#
# Per-example gradients need evaluation mode, where examples do not interact. The
# running statistics change from epoch to epoch; `jax.tree_util.Partial` passes them as
# arrays, so nothing is compiled again.


# %%
class Normalised(nn.Module):
    @nn.compact
    def __call__(self, inputs, train):
        hidden = nn.Conv(16, (3, 3))(inputs)
        hidden = nn.relu(nn.BatchNorm(use_running_average=not train)(hidden))
        return nn.Dense(10)(hidden.reshape(hidden.shape[0], -1))


def evaluated(batch_stats, params, inputs):
    variables = {"params": params, "batch_stats": batch_stats}
    return Normalised().apply(variables, inputs, train=False)


variables = Normalised().init(jax.random.key(0), images[:1], train=True)
traces = fisher_and_hessian_trace(
    jax.tree_util.Partial(evaluated, variables["batch_stats"]),
    variables["params"],
    images[:100],
    labels[:100],
    jax.random.key(1),
)
print(f"Tr(F) = {traces.fisher.mean:.2f} ± {traces.fisher.sem:.2f}")
print(f"Tr(H) = {traces.hessian.mean:.2f} ± {traces.hessian.sem:.2f}")
