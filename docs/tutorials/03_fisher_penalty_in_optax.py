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
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import fisher_jax
from fisher_jax.models.simple_cnn import SimpleCNN
from fisher_jax.parallel import make_mesh
from fisher_jax.penalties import add_penalty, fisher_penalty
from fisher_jax.startup import keep_convolutions_off_ynnpack
from fisher_jax.train import load_run

plt.style.use("fisher_jax.report.paper")
# As main.py does: on CPU, jax 0.10 computes convolutions slowly and otherwise, if not.
keep_convolutions_off_ynnpack()

# %% [markdown]
# ## A loop of one's own
#
# The 1797 digits of scikit-learn, 1000 to train on; a quarter of their labels is
# replaced by uniform draws. Any `logits_fn(params, inputs)` will do.

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
# `step` below is an ordinary training step but for `penalty_fn`. The penalty is a
# function of the parameters, so any penalty and any batch can stand there: half of
# the batch, `draw="rademacher"` for RFP, `gradient_penalty`, one of your own.
# The gradient that is kept lives in the optimizer's state, and is saved, restored and
# sharded with it.


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

# %% [markdown]
# Without the penalty Tr(F) explodes and the network memorises wrong labels.
# (`α = 0` still computes the penalty every tenth step, which is why its Tr(F) is known.
# One minibatch's value is a noisy estimate: `fisher_trace` is the one to report.)
#
# ## Checked against main.py
#
# `main.py` trains with the same `add_penalty`, in a step made for many devices. From
# the same start, on the same batches and with the same keys, both must arrive at the
# same parameters. First, five epochs of `main.py`:

# %%
root = Path(fisher_jax.__file__).parents[1]
sys.path.append(str(root))  # a clone, whose experiments/ are read below
settings = {"train.num_epochs": 5, "measure.fisher_examples": 0}
with tempfile.TemporaryDirectory() as workdir:
    command = [
        sys.executable,
        "main.py",
        "--config=experiments/digits_fp.py:fp",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in settings.items()),
    ]
    subprocess.run(
        command, cwd=root, env=os.environ, check=True, stdout=subprocess.DEVNULL
    )
    _, trained, config = load_run(workdir)
    records = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
last = json.loads(records[-1])
print(f"main.py took {last['step']} steps")

# %% [markdown]
# Then as many of ours. `assemble` makes what `main.py` starts from: parameters, the
# run's key, and batches as a function of the step.

# %%
from fisher_jax.train import assemble
from fisher_jax.train.step import step_keys

plan, start = assemble.build(config, assemble.load_data(config), make_mesh())

optimizer = optax.chain(
    add_penalty(config.penalty.coefficient, update_every=config.penalty.update_every),
    optax.sgd(config.optimizer.learning_rate, momentum=config.optimizer.momentum),
)
params, run_key = start.state.params, start.state.key
state, step = optimizer.init(params), make_step(optimizer)
for number, (inputs, labels) in enumerate(plan.feed.training_batches(0, last["step"])):
    key = step_keys(run_key, number).penalty
    params, state = step(params, state, inputs, labels, key)


def distance(a, b):
    return float(optax.tree_utils.tree_norm(optax.tree_utils.tree_sub(a, b)))


apart = distance(params, trained["params"])
moved = distance(params, start.state.params)
print(f"moved by {moved:.3f}, apart by {apart:.1e}")
print(f"penalty {state[0].penalty_value:.6f}, main.py's {last['penalty/value']:.6f}")
assert apart < 1e-5 * moved

# %% [markdown]
# The rest is rounding: the two programs sum in another order.
