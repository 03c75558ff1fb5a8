"""How XLA is told to compile, before any device is used."""

import os
import subprocess
import sys

import jaxlib
import pytest

from fisher_jax import startup
from fisher_jax.errors import UserError
from tests.command import errors, run
from tests.tiers import some

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.fixture
def flags(monkeypatch):
    def after(before, version=(0, 12, 0)):
        monkeypatch.setenv("XLA_FLAGS", before)
        monkeypatch.setattr(jaxlib.version, "__version_info__", version)
        startup.keep_convolutions_off_ynnpack()
        return os.environ["XLA_FLAGS"]

    return after


def test_the_flag_is_added_once_and_the_users_choice_stays(flags):
    other = "--xla_force_host_platform_device_count=2"
    once = flags(other)
    assert once.startswith(f"{other} {FLAG}=")
    assert "CONVOLUTION" not in once
    assert flags(once) == once
    assert flags(f"{FLAG}=") == f"{FLAG}="


def test_flags_in_a_file_are_kept(flags, tmp_path):
    (tmp_path / "flags").write_text("--xla_dump_to=x\n--xla_a=1\n")
    assert flags(str(tmp_path / "flags")).startswith(
        f"--xla_dump_to=x --xla_a=1 {FLAG}="
    )
    with pytest.raises(
        UserError, match=r"XLA_FLAGS=.*none is neither a flag .* nor a file"
    ):
        flags(str(tmp_path / "none"))


MEANINGLESS = {
    "JAX_ENABLE_X64": "invalid truth value 'foo'",
    "JAX_DEFAULT_PRNG_IMPL": "JAX flag jax_default_prng_impl",
    "XLA_FLAGS": "XLA_FLAGS=foo is neither a flag",
}


@pytest.mark.parametrize("name", some(MEANINGLESS, ["JAX_ENABLE_X64"]))
def test_settings_that_nobody_understands_get_one_line(tmp_path, name):
    code, output = run(
        "--config=experiments/base.py", f"--workdir={tmp_path}/run",
        environment={name: "foo"},
    )  # fmt: skip
    assert code == 2, output
    (line,) = errors(output)
    assert MEANINGLESS[name] in line
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_versions_that_may_not_know_the_flag_are_left_alone(flags):
    assert flags("", (0, 9, 2)) == ""
    assert flags("", (0, 13, 0)) == ""


# XLA's own reductions were wrong under a neighbouring setting (jax-ml/jax#39103).
COMPARE = """
from fisher_jax import startup
startup.keep_convolutions_off_ynnpack()
import jax, numpy as np
import jax.numpy as jnp
from fisher_jax import trees
from fisher_jax.curvature import squared_gradient_norms
from fisher_jax.models import SimpleCNN

model, key = SimpleCNN(10), jax.random.key(0)
images = jax.random.normal(key, (64, 32, 32, 3))
labels = jnp.arange(64) % 10
params = jax.jit(model.init)(key, images[:1])["params"]

def logits_fn(params, inputs):
    return model.apply({"params": params}, inputs)

def naive(image, label):
    def loss(p):
        return -jax.nn.log_softmax(logits_fn(p, image[None])[0])[label]
    return trees.squared_norm(jax.grad(loss)(params))

norms = jax.jit(lambda *args: squared_gradient_norms(logits_fn, *args))
ours = norms(params, images, labels)
expected = jax.jit(jax.vmap(naive))(images, labels)
np.testing.assert_allclose(ours, expected, rtol=1e-4)
print("agree")
"""


def test_norms_per_example_are_right_under_the_flag():
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "agree", done.stderr[-2000:]


CACHE = """
import sys
from pathlib import Path
import jax
from fisher_jax import startup
startup.start_compilation_cache(Path(sys.argv[1]))
for number in range(20):
    jax.jit(lambda x: x + number)(0.0)
"""


def test_the_smallest_programs_are_kept_on_disk_too(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-c", CACHE, str(tmp_path / "cache")]
    subprocess.run(command, env=environment, check=True)
    kept = [path for path in (tmp_path / "cache").iterdir() if "lambda" in path.name]
    assert len(kept) >= 20
