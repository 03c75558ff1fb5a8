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
# # 4. Reading a memorisation experiment
#
# Section 4.1 of Jastrzębski et al. (2021) replaces a part of the training labels by
# uniform draws. A network that memorises ends up fitting them; one that is trained with
# the Fisher Penalty (FP) hardly does. Here that experiment runs in small, on digits
# with a quarter of the labels replaced, and its records are read. The files are the
# same for every run of `main.py`, on any data and any number of devices.

# %%
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import fisher_jax

plt.style.use("fisher_jax.report.paper")
root = Path(fisher_jax.__file__).parents[1]
workdir = Path(tempfile.mkdtemp())

# Shorter than experiments/digits_fp.py, which takes 150 epochs.
shorter = {
    "train.num_epochs": 90,
    "optimizer.decay_epochs": "(75,)",
    "penalty.coefficient": 0.1,
    "measure.every_epochs": 3,
    "measure.fisher_examples": 128,
    "measure.gradient_examples": 64,
}


def run(variant):
    command = [
        sys.executable,
        "main.py",
        f"--config=experiments/digits_fp.py:{variant}",
        f"--workdir={workdir / variant}",
        *(f"--config.{key}={value}" for key, value in shorter.items()),
    ]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)


for variant in ("baseline", "fp"):
    run(variant)

# %% [markdown]
# ## What a run leaves
#
# `metrics.jsonl` holds one record a line; `result.json` the summary, once the run has
# ended; `config.json` the configuration with versions and devices.

# %%
print(sorted(path.name for path in (workdir / "fp").iterdir()))
records = {
    variant: pd.read_json(workdir / variant / "metrics.jsonl", lines=True)
    for variant in ("baseline", "fp")
}
results = pd.DataFrame(
    {
        variant: json.loads((workdir / variant / "result.json").read_text())
        for variant in records
    }
)
shown = [
    "best_test_accuracy",
    "test_accuracy",
    "final_train_clean_accuracy",
    "final_train_noisy_accuracy",
    "max_fisher_trace",
]
print(results.loc[shown])

# %% [markdown]
# `final_train_noisy_accuracy` is the part of the wrong labels that is memorised. The
# baseline's test accuracy falls from its best value as it memorises.
#
# ## When it happens
#
# Clean examples are learnt first, with and without the penalty. In the baseline Tr(F)
# explodes within the first epochs, long before the wrong labels are fitted; under FP it
# stays ten times lower.

# %%
names = {"baseline": "baseline", "fp": "FP"}
figure, panels = plt.subplots(1, 3, figsize=(6.75, 2.2))
for color, (variant, record) in enumerate(records.items()):
    style = {"color": f"C{color}", "label": names[variant]}
    epochs = record["epoch"]
    panels[0].plot(epochs, record["train/clean_accuracy"], "--", **style)
    panels[0].plot(epochs, record["train/noisy_accuracy"], **style)
    panels[1].plot(epochs, record["test/accuracy"], **style)
    panels[2].errorbar(
        epochs, record["trace/fisher"], record["trace/fisher_sem"], **style
    )
panels[0].set(title="Fitted labels: clean (dashed), wrong", ylim=(0, 1.02))
panels[1].set(title="Test accuracy", ylim=(0, 1.02))
panels[1].legend(loc="lower right")
panels[2].set(title="Tr(F)", yscale="log")
for panel in panels:
    panel.set_xlabel("epoch")
plt.show()

# %% [markdown]
# ## Who pulls
#
# The mean gradients of clean and of wrongly labelled examples, g_clean and g_noisy,
# tell what the network is being taught. Figure 5 of the paper compares their norms. A
# ratio above one says that wrong labels pull harder; FP keeps it mostly lower. A
# negative cosine says that the two pull in opposite directions.

# %%
figure, panels = plt.subplots(1, 2, figsize=(4.6, 2.2))
for variant, record in records.items():
    ratio = record["gradient/noisy_norm"] / record["gradient/clean_norm"]
    panels[0].plot(record["epoch"], ratio, label=names[variant])
    panels[1].plot(record["epoch"], record["gradient/cosine"])
panels[0].set(title="‖g_noisy‖ / ‖g_clean‖", xlabel="epoch", ylim=(0, None))
panels[0].legend()
panels[1].set(title="cosine(g_clean, g_noisy)", xlabel="epoch", ylim=(-1.05, 1.05))
plt.show()

# %% [markdown]
# What to look out for when reading such a run:
#
# - accuracies on wrong labels count examples whose label differs from the true one; a
#   uniform draw hits the true class in one of ten cases, so the rate is below 25%;
# - one seed is one seed: the sweep `experiments/table3.py:small` has several, and
#   `python -m fisher_jax.report RUNS --out=report` sets them beside the paper's table;
# - `python -m fisher_jax.report compare RUN RUN` overlays any runs without a line of
#   code.

# %%
baseline, penalised = (
    results[name]["final_train_noisy_accuracy"] for name in ("baseline", "fp")
)
print(f"memorised: {baseline:.0%} without, {penalised:.0%} with the penalty")
shutil.rmtree(workdir)

# %% tags=["check"]
assert penalised < baseline / 2
