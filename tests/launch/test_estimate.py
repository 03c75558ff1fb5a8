"""What --estimate says, beside counts by hand; nothing is run."""

import pytest
from rich.console import Console

from fisher_jax.errors import UserError
from fisher_jax.train import cost
from fisher_jax.train.config import check_config, flat_config, load_config
from fisher_jax.train.cost import Program, RunCost
from launch.estimate import Device, hours, print_estimate
from launch.units import amount, duration
from tests.command import ROOT

BASE = str(ROOT / "experiments" / "base.py")


@pytest.fixture(scope="module")
def digits():
    config = load_config(BASE, [("penalty.name", "fisher")])
    return config, cost.step_programs(config)


def test_a_forward_pass_costs_what_its_layers_multiply(digits):
    _, (parameters, forward, plain, update) = digits
    # Keras' CNN with padding "same" on 8x8x1: (pixels, kernel, in, out) of each layer.
    convolutions = ((64, 9, 1, 32), (64, 9, 32, 32), (16, 9, 32, 64), (16, 9, 64, 64))
    dense = 4 * 64 * 128 + 128 * 10
    # A kernel that reaches over the border multiplies nothing there.
    inner = {64: (22 / 24) ** 2, 16: (10 / 12) ** 2}
    flops = 2 * (sum(p * k * i * o * inner[p] for p, k, i, o in convolutions) + dense)
    assert forward == pytest.approx(flops, rel=0.05)
    assert parameters == 99_178
    assert plain.flops == pytest.approx(3 * 128 * forward, rel=0.1)
    # The penalty: a gradient and its derivative along a direction, 9 forward passes, of
    # which the first is that of the cross-entropy, which XLA computes once for both.
    assert update.flops - plain.flops == pytest.approx(8 * 128 * forward, rel=0.05)
    assert update.memory > plain.memory > 4 * parameters


@pytest.mark.slow
def test_a_penalty_of_images_that_are_not_mixed_shares_no_forward_pass():
    changes = [("penalty.name", "fisher"), ("mixup.beta", "0.4")]
    _, forward, plain, update = cost.step_programs(load_config(BASE, changes))
    assert update.flops - plain.flops == pytest.approx(9 * 128 * forward, rel=0.05)


def test_a_run_is_its_steps_updates_and_measurements(digits):
    config, programs = digits
    changes = {
        "train.num_epochs": 6,  # of 7 steps
        "penalty.start_epoch": 2,
        "penalty.update_every": 10,
        "measure.every_epochs": 3,
        "measure.fisher_examples": 100,
    }
    config = check_config(flat_config(config) | changes)
    run = cost.run_cost(config, programs)
    assert (run.steps, run.updates) == (42, 3)  # steps 14, 24 and 34
    # Records at epochs 0, 3 and 6: 1000 + 797 scored, Tr(F) three times dearer.
    assert run.measure_flops == pytest.approx(programs[1] * 3 * (1797 + 300))


def test_hours_follow_the_tighter_bound():
    device = Device(training=100.0, exact=10.0, bandwidth=50.0, memory=1e9)
    bound_by_flops = RunCost(1, 36, Program(200, 10, 1), None, 0, 0.0)
    assert hours(bound_by_flops, device, 0.5) == pytest.approx(36 * 2 / 0.5 / 3600)
    bound_by_bytes = RunCost(1, 36, Program(200, 500, 1), None, 0, 100.0)
    assert hours(bound_by_bytes, device, 1.0) == pytest.approx((36 * 10 + 10) / 3600)


def test_numbers_have_units_that_read_well():
    assert amount(1.486e10, "FLOP") == "14.9 GFLOP"
    assert amount(62_900_000, "B") == "62.9 MB"
    assert amount(0, "B") == "0 B"
    assert duration(0.3 / 3600) == "0.3 s"
    assert duration(0.0738) == "4.4 min"
    assert duration(2.213) == "2.21 h"
    assert duration(1234.0) == "1,230 h"


def test_equal_programs_are_compiled_once_and_counted(tmp_path, capsys):
    file = tmp_path / "sweep.py"
    file.write_text(
        "from experiments import base\nget_config = base.get_config\n"
        "def get_sweep(): return [{'seed': s} for s in range(24)]\n"
    )
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        assert print_estimate(console, str(file), [], 0.3) == 0
    assert capture.get().count("Compiling") == 1
    assert "on H100: " in capture.get()
    assert " 24 " in capsys.readouterr().out
    with pytest.raises(UserError, match="utilisation"):
        print_estimate(console, str(file), [], 1.5)
    assert print_estimate(console, str(file), [], 0.3, only=["seed_1*"]) == 0
    assert " 11 " in capsys.readouterr().out  # 1 and 10 to 19
    with pytest.raises(UserError, match="no run matches 'fp'"):
        print_estimate(console, str(file), [], 0.3, only=["fp"])
