"""Run directories with made-up numbers, for the report's benchmark and tests only.

The shapes are those of real runs: accuracy that saturates, Tr(F) that peaks early and
the lower the larger learning rate or penalty, every configuration key there is.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import base
from fisher_jax.run_files import flatten

VERSIONS = {
    "python": "3.11.7",
    "fisher_jax": "0.1.0",
    "jax": "0.10.2",
    "numpy": "2.4.6",
}
PENALTIES = {
    "fp": {"penalty.name": "fisher"},
    "rfp": {"penalty.name": "fisher", "penalty.draw": "rademacher"},
    "fp_single": {"penalty.name": "fisher_single"},
    "gp": {"penalty.name": "gradient"},
    "gp_r": {"penalty.name": "random_label"},
    "gp_x": {"penalty.name": "input_gradient"},
}


def write_run(
    directory: Path,
    *,
    experiment: str,
    changes: Mapping[str, Any],
    method: str = "baseline",
    stage: str = "final",
    form: str = "",
    group: Mapping[str, Any] | None = None,
    every_steps: int = 0,
    steps_per_epoch: int = 100,
    until_epoch: int | None = None,
    commit: str = "1234567890abcdef1234567890abcdef12345678",
    place: bool = True,
    estimators: bool = False,
) -> Path:
    """Writes config.json, metrics.jsonl, result.json and run.json of one run.

    Args:
        changes: flat configuration keys on top of base.py's.
        until_epoch: the run broke off there and has no result.json.
        place: whether run.json, a run's place in a sweep, is written.
        estimators: whether the errors of estimators are recorded.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = flatten(base.get_config().to_dict()) | dict(changes)
    if method in PENALTIES:
        config |= PENALTIES[method]
    curves = _Curves(config, method)
    rows = curves.records(steps_per_epoch, every_steps, until_epoch)
    if estimators:
        rows = [row | _estimator_errors(row["step"]) for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "metrics.jsonl").write_text(lines)
    noise = config["dataset.label_noise"]
    content = {
        "config": _nested(config),
        "argv": ["main.py", f"--config=experiments/{experiment}.py"],
        "versions": VERSIONS,
        "git_commit": commit,
        "steps_an_epoch": steps_per_epoch,
        "label_noise_effective_rate": 0.9 * noise,
        "device_kind": "cpu",
        "device_count": 1,
    }
    (directory / "config.json").write_text(json.dumps(content))
    if until_epoch is None:
        result = {"status": "finished", "steps": rows[-1]["step"]}
        (directory / "result.json").write_text(json.dumps(result))
    if place:
        where = {"experiment": experiment, "form": form, "method": method}
        dataset, model = config["dataset.name"], config["model.name"]
        where |= {"setting": f"{dataset}_{model}", "stage": stage}
        where |= {"seed": config["seed"], "group": dict(group or {})}
        (directory / "run.json").write_text(json.dumps(where))
    return directory


def _estimator_errors(step: int) -> dict[str, float]:
    random = np.random.default_rng(step)
    sizes = {"labels_per_example": 0.3, "signs_per_example": 0.02, "hutchinson": 0.5}
    return {
        f"estimator/{name}": size * float(random.uniform(0.5, 2))
        for name, size in sizes.items()
    }


class _Curves:
    """Made-up curves of one run, from its configuration."""

    def __init__(self, config: Mapping[str, Any], method: str):
        seed = config["seed"] + int(1e6 * config["optimizer.learning_rate"])
        self.random = np.random.default_rng(seed + 977 * len(method))
        self.config = config
        penalty = config["penalty.coefficient"] * (method in PENALTIES)
        rate = config["optimizer.learning_rate"] * 128 / config["train.batch_size"]
        self.regularised = np.log10(1 + 100 * penalty + 100 * rate)
        self.peak = 4000 / (1 + 3 * self.regularised) * self.random.uniform(0.85, 1.15)
        self.best = 0.55 + 0.12 * self.regularised - 0.03 * self.regularised**3
        self.best = float(np.clip(self.best + self.random.normal(0, 0.01), 0.1, 0.99))
        self.noisy_share = 1 / (1 + 5 * self.regularised)

    def records(
        self, per_epoch: int, every_steps: int, until: int | None
    ) -> list[dict[str, Any]]:
        num_epochs = self.config["train.num_epochs"] if until is None else until
        ends = set(range(0, num_epochs * per_epoch + 1, per_epoch))
        between = (
            range(0, num_epochs * per_epoch + 1, every_steps) if every_steps else ()
        )
        return [
            self.record(step, per_epoch, step in ends)
            for step in sorted(ends | set(between))
        ]

    def record(self, step: int, per_epoch: int, is_end: bool) -> dict[str, Any]:
        epoch, config = step / per_epoch, self.config
        time = epoch / max(config["train.num_epochs"], 1)
        jitter = self.random.normal(0, 0.01, 8)
        learnt = 1 - np.exp(-12 * time)
        trace = self.peak * (0.05 + 20 * time * np.exp(1 - 20 * time) + 0.1 * time)
        trace *= float(np.exp(3 * jitter[0]))
        row: dict[str, Any] = {
            "step": step,
            "epoch": int(epoch) if epoch.is_integer() else round(epoch, 6),
            "time": 0.9 * epoch + 2,
            "time/steps_per_second": per_epoch / (0.9 + float(jitter[5]))
            if step
            else None,
            "minibatch/accuracy": float(np.clip(learnt + 5 * jitter[6], 0, 1)),
            "trace/fisher": trace,
            "trace/fisher_sem": 0.02 * trace,
            "trace/fisher_minibatch": trace / 128 * float(np.exp(20 * jitter[1])),
        }
        if not is_end:
            return row
        row["train/loss"] = 2.3 * float(np.exp(-10 * time)) + 0.01
        row["train/accuracy"] = float(np.clip(0.1 + 0.9 * learnt, 0, 1))
        row["train/clean_accuracy"] = row["train/accuracy"]
        row["train/noisy_accuracy"] = float(self.noisy_share * time)
        for name, shift in (("validation", 2), ("test", 3)):
            accuracy = self.best * learnt + 0.3 * float(jitter[shift])
            row[f"{name}/accuracy"] = float(np.clip(accuracy, 0, 1))
            row[f"{name}/loss"] = 2.3 - 2 * row[f"{name}/accuracy"]
        if config["measure.hessian_probes"]:
            row["trace/hessian"] = trace * float(np.exp(10 * jitter[4]))
            row["trace/hessian_sem"] = 0.1 * row["trace/hessian"]
        if config["dataset.label_noise"]:
            clean = 0.3 + float(np.exp(-20 * time))
            row["gradient/clean_norm"] = clean
            row["gradient/noisy_norm"] = clean * (1 + 3 * self.noisy_share * learnt)
            row["gradient/cosine"] = float(np.cos(2 * learnt)) * self.noisy_share
        return row


def paper_runs(
    out: Path, *, num_epochs: int = 20, seeds: Sequence[int] = (0, 1, 2)
) -> int:
    """Writes runs of every experiment at the paper's settings; returns how many."""
    count = 0
    for changes in _all_experiments(num_epochs):
        for seed in seeds:
            count += 1
            arguments = {k: v for k, v in changes.items() if k != "config"}
            repeat = arguments.pop("repeat", 0)
            config = changes["config"] | {"seed": 100 * repeat + seed}
            if config.get("train.init_from"):
                config["train.init_from"] = str(
                    out / changes["experiment"] / f"{config['train.init_from']}-{seed}"
                )
            name = arguments.pop("name", f"run{count}") + f"-{seed}"
            folder = out / changes["experiment"] / name
            write_run(folder, changes=config, **arguments)
    return count


SETTINGS = {
    "cifar100_densenet": {"dataset.name": "cifar100", "model.name": "densenet"},
    "cifar100_vgg11": {"dataset.name": "cifar100", "model.name": "vgg11"},
    "cifar100_wide_resnet": {"dataset.name": "cifar100", "model.name": "wide_resnet"},
    "cifar10_simple_cnn": {"dataset.name": "cifar10", "model.name": "simple_cnn"},
    "tiny_imagenet_wide_resnet": {
        "dataset.name": "tiny_imagenet",
        "model.name": "wide_resnet",
    },
}
CNN = SETTINGS["cifar10_simple_cnn"]
_RESNET = {"model.name": "resnet", "model.depth": 26}


def _all_experiments(num_epochs: int) -> list[dict[str, Any]]:
    epochs = {"train.num_epochs": num_epochs}
    runs: list[dict[str, Any]] = []

    def add(experiment: str, config: Mapping[str, Any], **arguments: Any) -> None:
        merged = epochs | dict(config)
        runs.append({"experiment": experiment, "config": merged, **arguments})

    for setting in SETTINGS.values():
        for method in ("eta_star", "baseline", "gp_x", "gp", "fp", "gp_r"):
            rate = 0.1 if method == "eta_star" else 0.01
            alpha = {"penalty.coefficient": 0.05} if method in PENALTIES else {}
            add(
                "table1",
                setting | {"optimizer.learning_rate": rate} | alpha,
                method=method,
            )
        for method in ("eta_star", "fp"):
            alpha = {"penalty.coefficient": 0.05} if method == "fp" else {}
            more = {"dataset.augment": "standard", "optimizer.learning_rate": 0.1}
            add("table2", setting | more | alpha, method=method)
    for name in ("cifar100_vgg11", "cifar100_wide_resnet"):
        for noise in (0.25, 0.5):
            more = SETTINGS[name] | {"dataset.label_noise": noise}
            for method in ("baseline", "mixup", "gp_x", "gp_r"):
                alpha = {"penalty.coefficient": 0.05} if method in PENALTIES else {}
                beta = {"mixup.beta": 0.8} if method == "mixup" else {}
                add("table3", more | alpha | beta, method=method)
            for alpha in (0.01, 0.03, 0.1, 0.3, 1.0):
                add(
                    "table3",
                    more | {"penalty.coefficient": alpha},
                    method="fp",
                    stage="search",
                )
            add("table3", more | {"penalty.coefficient": 0.3}, method="fp")
    for rate in (0.0316, 0.001):
        add(
            "fig01",
            SETTINGS["tiny_imagenet_wide_resnet"] | {"optimizer.learning_rate": rate},
        )
    for name, rates, sizes in (
        ("imagenet2012", (0.001, 0.01, 0.1), ()),
        ("cifar10", (0.007, 0.01, 0.05), (100, 500, 700)),
        ("cifar100", (0.001, 0.005, 0.01), (100, 300, 700)),
    ):
        data = {"dataset.name": name, **_RESNET, "measure.hessian_probes": 30}
        for rate in rates:
            add("fig02", data | {"optimizer.learning_rate": rate})
        for size in sizes:
            add(
                "fig07",
                data | {"train.batch_size": size, "optimizer.learning_rate": 0.02},
            )
    for name in list(SETTINGS)[:4]:
        for method, rate in (("eta_star", 0.1), ("baseline", 0.01)):
            add(
                "fig03",
                SETTINGS[name] | {"optimizer.learning_rate": rate},
                method=method,
            )
        for start in (1, 2, 4, 8, 16, 32, 64, 128):
            more = {"penalty.start_epoch": start, "penalty.coefficient": 0.2 / start}
            add("fig03", SETTINGS[name] | more, method="fp")
    _two_phase(add)
    _varied(add)
    return runs


def _two_phase(add: Any) -> None:
    for name, key, high, low in (
        ("cifar100", "optimizer.learning_rate", 0.01, 0.001),
        ("cifar10", "train.batch_size", 100, 500),
    ):
        data = {"dataset.name": name, **_RESNET, "measure.hessian_probes": 30}
        for start, value in (("high", high), ("low", low)):
            first = f"first-{name}-{start}"
            add("fig06", data | {key: value, "train.num_epochs": 20}, name=first)
            for repeat in range(4):
                more = {key: low, "train.init_from": first}
                second = f"second-{name}-{start}-{repeat}"
                add("fig06", data | more, name=second, repeat=repeat)


def _varied(add: Any) -> None:
    hessian = {"measure.hessian_probes": 30}
    for size in (480, 500, 520, 80, 100, 120):
        more = {"dataset.name": "cifar10", **_RESNET, **hessian}
        add("fig14", more | {"train.batch_size": size, "optimizer.learning_rate": 0.02})
    for rate in (0.0008, 0.001, 0.0012, 0.008, 0.01, 0.012):
        more = {"dataset.name": "cifar100", **_RESNET, **hessian}
        add("fig14", more | {"optimizer.learning_rate": rate})
    for rate in np.geomspace(1e-3, 1e-1, 5):
        add("fig15", CNN | {"optimizer.learning_rate": float(f"{rate:.4g}")})
    for alpha in np.geomspace(0.01, 1, 10):
        for every in (1, 10):
            more = {"penalty.coefficient": float(alpha), "penalty.update_every": every}
            add("fig16", CNN | more, method="fp")
        single = {"penalty.coefficient": float(alpha) / 100, "penalty.update_every": 1}
        add("fig17", CNN | single, method="fp_single")
        large = {"train.batch_size": 1280, "penalty.num_examples": 128}
        large |= {"penalty.coefficient": float(alpha), "penalty.update_every": 1}
        add("fig20", CNN | large, method="fp")
    for rate in (0.01, 0.1):
        add("fig18", CNN | {"optimizer.learning_rate": rate}, every_steps=1)
    for size in (32, 128, 512):
        add("fig19", CNN | {"train.batch_size": size}, every_steps=1)
    add("beyond_estimators", CNN, estimators=True)
    for model in ("densenet", "resnet", "simple_cnn"):
        add("fig21", {"dataset.name": "cifar10", "model.name": model, **hessian})
    for noise in (0.0, 0.25):
        more = SETTINGS["cifar100_vgg11"] | {"dataset.label_noise": noise}
        add("beyond_rfp", more, method="baseline")
        for method in ("fp", "rfp", "gp_r"):
            for alpha in (0.01, 0.1, 1.0):
                add("beyond_rfp", more | {"penalty.coefficient": alpha}, method=method)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested
