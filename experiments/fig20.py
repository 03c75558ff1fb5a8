"""Figure 20: the Fisher Penalty repairs a large batch.

    python -m launch.sweep --config=experiments/fig20.py --out=runs/fig20 \
        --config.dataset.data_dir=DIR --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/fig20.py:small --out=runs/fig20_small

Paper (appendix): SimpleCNN on CIFAR-10, batch 1280 instead of 128, half the learning
rate, FP at every step on the first 128 examples of the batch; validation accuracy and
Tr(F) against epoch for each alpha. Published, test accuracy: batch 128 76.94%, batch
1280 73.7%, with half the rate 73.59%, with FP 78.7%.

Expected time: 22 runs, 1.8 device-hours on A100s, 0.77 on H100s, 2.6 on TPU v5es
(``--estimate``, at 30% of their peak); small: 12 runs of 5 s on two CPU cores.

Open: alpha's grid, taken as table 1's; the winner by validation accuracy and the runs
without FP have 3 seeds.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.settings import DIGITS, SIMPLE_CNN
from experiments.sweeps import (
    Search,
    SweepRun,
    Winners,
    candidates,
    changed,
    check_arg,
    over_seeds,
    overrides,
    taken,
    winner,
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the first run; the others are changes of it."""
    return get_runs(arg)[0].config


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """Returns every run's overrides."""
    return overrides(get_config(arg), get_runs(arg))


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs without FP, the search of alpha and its final runs."""
    check_arg("fig20.py", arg)
    setting = DIGITS if arg == "small" else SIMPLE_CNN
    eta_star = taken(winners, setting.eta_search, setting.eta_star)
    batch_size = setting.get_config().train.batch_size
    # Of 200 digits a batch ten times larger would be more than all.
    large = 5 * batch_size if arg == "small" else 10 * batch_size
    plain = (
        ("eta_star", batch_size, "eta_star"),
        ("baseline", large, "eta_star"),
        ("baseline", large, "half"),
    )
    runs = []
    for method, size, rate in plain:
        run = setting.run(method, eta_star / 2 if rate == "half" else eta_star)
        run = run._replace(
            config=changed(run.config, {"train.batch_size": size}),
            group={"batch_size": size, "learning_rate": rate},
        )
        runs += over_seeds(run, setting.seeds)
    fp = setting.run("fp", eta_star / 2)
    changes = {
        "train.batch_size": large,
        "penalty.update_every": 1,
        "penalty.num_examples": batch_size,
    }
    fp = fp._replace(config=changed(fp.config, changes), group={"batch_size": large})
    search = Search(f"{setting.name}/batch_{large}/fp", "penalty.coefficient")
    runs += candidates(fp, search, setting.coefficients["fp"])
    best = winner(winners, search, fp.config.penalty.coefficient)
    if best is None:
        return runs
    final = fp._replace(config=changed(fp.config, {search.key: best}))
    return runs + over_seeds(final, setting.seeds)
