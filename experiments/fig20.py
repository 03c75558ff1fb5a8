"""Figure 20: the Fisher Penalty repairs a large batch.

    python -m launch.sweep --config=experiments/fig20.py --out=runs/fig20 \
        --config.dataset.data_dir=DIR --winners=runs/table1/selection.json
    python -m launch.sweep --config=experiments/fig20.py:small --out=runs/fig20_small
    python -m launch.sweep --config=experiments/fig20.py:medium \
        --out=runs/fig20_medium --config.dataset.data_dir=DIR

Paper (appendix E): SimpleCNN on CIFAR-10, batch 1280 instead of 128, half the learning
rate, FP at every step on the first 128 examples of the batch; validation accuracy and
Tr(F) against epoch for each alpha.

Published values: fisher_jax/report/items/figure20.py.

Expected time: 22 runs, 1.9 device-hours on A100s, 0.79 on H100s, 2.7 on TPU v5es
(``--estimate``, at 30% of their peak); small: 24 runs of 8 s on two CPU cores.

Open: alpha's grid, taken as table 1's; on how many examples Tr(F) is taken, here as
many as the batch holds, as appendix I.2 has it for section 4; how many seeds, here 3
for alpha's winner by validation accuracy and for the runs without FP (small: 5).
"""

from experiments import sweeps
from experiments.settings import SMALL_SEEDS, simple_cnn
from experiments.sweeps import SweepRun, Winners

SMALL_COEFFICIENTS = (0.003, 0.01, 0.03, 0.1)


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs without FP, the search of alpha and its final runs."""
    sweeps.check_arg("fig20.py", arg)
    is_small = arg == "small"
    setting = simple_cnn(arg)
    seeds = SMALL_SEEDS if is_small else setting.seeds
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    batch_size = setting.get_config().train.batch_size
    # Of 200 digits a batch ten times larger would be more than all.
    large = 5 * batch_size if is_small else 10 * batch_size
    plain = (
        ("eta_star", batch_size, "eta_star"),
        ("baseline", large, "eta_star"),
        ("baseline", large, "half"),
    )
    runs = []
    for method, size, rate in plain:
        run = setting.run(method, eta_star / 2 if rate == "half" else eta_star)
        run = run._replace(
            config=sweeps.changed(run.config, _of_size(size)),
            group={"batch_size": size, "learning_rate": rate},
        )
        runs += sweeps.over_seeds(run, seeds=seeds)
    fp = setting.run("fp", eta_star / 2)
    changes = {
        **_of_size(large),
        "penalty.update_every": 1,
        "penalty.num_examples": batch_size,
    }
    fp = fp._replace(
        config=sweeps.changed(fp.config, changes), group={"batch_size": large}
    )
    search = sweeps.Search(f"{setting.name}/batch_{large}/fp", "penalty.coefficient")
    grid = SMALL_COEFFICIENTS if is_small else setting.coefficients["fp"]
    return runs + sweeps.searched(fp, search, grid, seeds, winners)


def _of_size(batch_size: int) -> sweeps.Changes:
    return {"train.batch_size": batch_size, "measure.fisher_examples": batch_size}


get_config, get_sweep = sweeps.entry_points(get_runs)
