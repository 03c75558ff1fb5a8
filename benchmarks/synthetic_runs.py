"""Run directories with made-up numbers, for the report's benchmark and tests only.

The shapes are those of real runs: accuracy that saturates, Tr(F) that peaks early and
the lower the larger learning rate or penalty, every configuration key there is.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import experiments
from experiments import base
from experiments.sweeps import SweepRun
from fisher_jax.run_files import flatten

VERSIONS = {
    "python": "3.11.7",
    "fisher_jax": "0.1.0",
    "jax": "0.10.2",
    "numpy": "2.4.6",
}
MAX_CANDIDATES = 30  # of a sweep's searches
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


def paper_runs(out: Path, *, num_epochs: int = 20, num_seeds: int = 3) -> int:
    """Writes runs of every experiment at the paper's settings; returns how many.

    Of each setting the first seeds, and of the candidates of searches a few.
    """
    count = 0
    for path in sorted(Path(experiments.__path__[0]).glob("*.py")):
        module = importlib.import_module(f"experiments.{path.stem}")
        if not hasattr(module, "get_runs"):
            continue
        runs = list(_few(module.get_runs(""), num_seeds))
        count += len(runs)
        for run in runs:
            config = flatten(run.config.to_dict()) | {"train.num_epochs": num_epochs}
            if start := config["train.init_from"]:
                folder = out / path.stem
                config["train.init_from"] = start.replace("OUT", str(folder), 1)
            write_run(
                out / path.stem / run.name,
                experiment=path.stem,
                changes=config,
                method=run.method,
                stage="search" if run.search else "final",
                group=run.group,
                every_steps=config["measure.every_steps"],
                estimators=bool(config["measure.estimator_repeats"]),
            )
    return count


def _few(runs: Sequence[SweepRun], num_seeds: int) -> Iterator[SweepRun]:
    candidates = [run for run in runs if run.search]
    yield from candidates[:: 1 + len(candidates) // MAX_CANDIDATES]
    settings: dict[Any, list[SweepRun]] = {}
    for run in runs:
        if not run.search:
            kind = run.setting, run.method, *run.group.items()
            settings.setdefault(kind, []).append(run)
    for of_setting in settings.values():
        yield from of_setting[:num_seeds]


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


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return nested
