import subprocess
import sys

import pytest

from tests.command import ROOT
from tests.compilation import quickly


@pytest.mark.parametrize(
    ("number", "seed"), [(4, 0), pytest.param(400, 1, marks=pytest.mark.slow)]
)
def test_random_networks_equal_brute_force(number, seed):
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.curvature.random_networks",
            str(number),
            str(seed),
        ],
        cwd=ROOT,
        # NPROC: XLA's threads, of which there are to be more than devices.
        env=quickly(flags) | {"JAX_PLATFORMS": "cpu", "NPROC": "16"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"tried {number} wrong 0" in done.stdout, done.stdout[:8000]
