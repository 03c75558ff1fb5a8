"""Figure 19: Tr(F) at every step, three batch sizes.

    python -m launch.sweep --config=experiments/fig19.py --out=runs/fig19 \
        --config.dataset.data_dir=DIR
    python -m launch.sweep --config=experiments/fig19.py:small --out=runs/fig19_small

Paper (appendix E): SimpleCNN on CIFAR-10, three batch sizes, at EVERY step Tr(F) on 128
examples drawn anew and the minibatch's training accuracy (smoothed). The larger the
batch, the higher Tr(F) rises; no numbers are printed.

Expected time: 9 runs, 0.3 device-hours on A100s, 0.11 on H100s, 0.29 on TPU v5es
(``--estimate``, at 30% of their peak); small: 15 runs of 20 s on two CPU cores.

Open: which batch sizes, here 32, 128 and 512, and which rate, here eta*; how long, here
50 epochs, as figure 18; how many seeds, here 3 (small: 5). The small form has a third
of the small eta*, at which batches of 20 train as well as larger ones.
"""

from experiments import fig18, sweeps
from experiments.settings import DIGITS, SIMPLE_CNN, SMALL_SEEDS
from experiments.sweeps import SweepRun, Winners

BATCH_SIZES = (32, 128, 512)
SMALL_BATCH_SIZES = (20, 60, 200)
SMALL = {**fig18.SMALL, "train.num_epochs": 120}


def get_runs(arg: str = "", winners: Winners | None = None) -> list[SweepRun]:
    """Returns the runs of each batch size, at table 1's eta* where it is given."""
    sweeps.check_arg("fig19.py", arg, ("small",))
    if arg == "small":
        run = DIGITS.run("eta_star", 0.01)
        run = run._replace(config=sweeps.changed(run.config, SMALL))
        runs = sweeps.varied(run, "train.batch_size", SMALL_BATCH_SIZES)
        return sweeps.over_seeds(*runs, seeds=SMALL_SEEDS)
    eta_star = sweeps.taken(winners, SIMPLE_CNN.eta_search, SIMPLE_CNN.eta_star)
    run = SIMPLE_CNN.run("eta_star", eta_star)
    run = run._replace(config=sweeps.changed(run.config, fig18.PAPER))
    runs = sweeps.varied(run, "train.batch_size", BATCH_SIZES)
    return sweeps.over_seeds(*runs, seeds=SIMPLE_CNN.seeds)


get_config, get_sweep = sweeps.entry_points(get_runs)
