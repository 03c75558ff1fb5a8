import subprocess
import sys
from pathlib import Path

from tests.compilation import quickly

ROOT = Path(__file__).parents[2]


def test_four_devices_give_what_one_gives():
    flags = "--xla_force_host_platform_device_count=4"
    completed = subprocess.run(
        [sys.executable, "-m", "tests.curvature.sharded"],
        cwd=ROOT,
        # NPROC: XLA's threads. Of as few as devices all may come to wait, each for
        # another of the program's collectives.
        env=quickly(flags) | {"JAX_PLATFORMS": "cpu", "NPROC": "16"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-4000:]
    lines = [line.rsplit(" ", 1) for line in completed.stdout.splitlines()]
    assert lines[-1] == ["done", "0"]
    wrong = [(what, value) for what, value in lines if not float(value) < 1e-6]
    assert not wrong
    assert len(lines) > 100
