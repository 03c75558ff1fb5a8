"""Figure 18: Tr(F) at every step, two learning rates.

    python -m launch.sweep --config=experiments/fig18.py --out=runs/fig18 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig18.py:small --out=runs/fig18_small

Paper (appendix D): SimpleCNN on CIFAR-10, two learning rates, at EVERY step Tr(F) on
128 examples drawn anew and the minibatch's training accuracy (smoothed). The large rate
never, not even for one step, has as large a Tr(F) as the small one's maximum; the first
epoch counts. No numbers are printed.

Expected time: 6 runs, 0.15 device-hours on A100s, 0.055 on H100s, 0.16 on TPU v5es
(``--estimate``, at 30% of their peak); small: 10 runs of 15 s on two CPU cores.

Open: which rates, here table 1's eta* and baseline; how long, here 50 epochs (small:
60), past the small rate's peak (epoch 28 in a run of ours); how many seeds, here 3
(small: 5).
"""

from experiments import sweeps
from experiments.settings import DIGITS, SIMPLE_CNN, SMALL_SEEDS
from experiments.sweeps import SweepRun, Winners

EVERY_STEP = {"measure.every_steps": 1, "measure.fisher_examples": 128}
PAPER = {**EVERY_STEP, "train.num_epochs": 50}
SMALL = {**EVERY_STEP, "train.num_epochs": 60, "optimizer.decay_epochs": ()}


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs of each rate, table 1's eta* where it is given."""
    sweeps.check_arg("fig18.py", arg, ("small",))
    is_small = arg == "small"
    setting = DIGITS if is_small else SIMPLE_CNN
    eta_star = sweeps.taken(winners, setting.eta_search, setting.eta_star)
    rates = {"eta_star": eta_star, "baseline": eta_star / setting.slower}
    runs = [
        run._replace(
            config=sweeps.changed(run.config, SMALL if is_small else PAPER),
            group={"learning_rate": run.method},
        )
        for run in (setting.run(method, rate) for method, rate in rates.items())
    ]
    return sweeps.over_seeds(*runs, seeds=SMALL_SEEDS if is_small else setting.seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
