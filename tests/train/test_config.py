import json

import pytest

from experiments import base, digits_fp
from fisher_jax.models import MODELS
from fisher_jax.run_files import flatten
from fisher_jax.train.config import (
    ConfigError,
    check_config,
    flat_config,
    load_config,
    split_overrides,
)
from fisher_jax.train.keys import Config, all_keys

BASE = "experiments/base.py"


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_base_holds_every_key_at_its_default():
    config = base.get_config()
    assert config.is_locked
    defaults = flat_config(check_config(flatten(config.to_dict())))
    assert defaults == flat_config(Config())
    assert defaults == {name: key.default for name, key in all_keys().items()}


def test_every_key_is_explained_and_every_number_of_something_has_its_unit():
    for name, key in all_keys().items():
        assert key.explanation.endswith("."), name
        counts = {"epochs", "steps", "examples", "seconds", "layers"} & {
            *name.replace(".", "_").split("_")[2:], name.split("_")[-1],
        }  # fmt: skip
        assert not counts or key.kind == "array" or key.unit, name


@pytest.mark.parametrize("key", ["padding", "depth", "width", "growth_rate"])
def test_a_key_of_the_model_is_for_those_that_have_it(key):
    for name, model in MODELS.items():
        value = "same" if key == "padding" else 8
        flat = {"model.name": name, f"model.{key}": value}
        if key in model.__dataclass_fields__:
            check_config(flat)
        else:
            with pytest.raises(
                ConfigError, match=f"{key} works with .*, not with {name}"
            ):
                check_config(flat)


def test_every_variant_of_digits_loads():
    for variant in digits_fp.VARIANTS:
        load_config(f"experiments/digits_fp.py:{variant}")


def test_overrides_take_the_type_of_their_key():
    config = load_config(
        BASE,
        [
            ("penalty.coefficient", "1"),
            ("dataset.num_train", "200"),
            ("dataset.num_train", "None"),
            ("optimizer.decay_epochs", "(150, 225)"),
            ("dataset.data_dir", "/a=b"),
        ],
    )
    assert config.penalty.coefficient == 1.0
    assert isinstance(config.penalty.coefficient, float)
    assert config.dataset.num_train is None
    assert config.optimizer.decay_epochs == (150, 225)
    assert config.dataset.data_dir == "/a=b"


@pytest.mark.parametrize("text", ["150,225", "[150, 225]", "(150,225)"])
def test_epochs_can_be_written_in_three_ways(text):
    config = load_config(BASE, [("optimizer.decay_epochs", text)])
    assert config.optimizer.decay_epochs == (150, 225)


def test_no_epochs_and_one_epoch():
    for text, expected in (("()", ()), ("", ()), ("30", (30,))):
        config = load_config(BASE, [("optimizer.decay_epochs", text)])
        assert config.optimizer.decay_epochs == expected


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("penalty.coeficient", "1", "did you mean 'penalty.coefficient'?"),
        ("nothing.like.it", "1", "unknown key 'nothing.like.it'"),
        ("penalty.name", "fischer", "did you mean 'fisher'?"),
        ("penalty.coefficient", "lots", "a number of at least 0, got 'lots'"),
        ("penalty.coefficient", "-0.1", "at least 0"),
        ("penalty.coefficient", "nan", "at least 0"),
        ("optimizer.learning_rate", "inf", "above 0"),
        ("train.num_epochs", "1.5", "an integer of at least 1, got '1.5'"),
        ("train.num_epochs", "0", "at least 1"),
        ("train.num_epochs", "None", "an integer"),
        ("dataset.label_noise", "1.5", "from 0 to 1"),
        ("dataset.num_train", "-3", "at least 1 or None"),
        ("optimizer.decay_epochs", "225,150", "must increase"),
        ("optimizer.decay_epochs", "a,b", "integers"),
        ("optimizer.decay_epochs", "1.5", "integers"),
        ("optimizer.decay_epochs", "__import__('os')", "integers"),
        ("penalty.num_examples", "500", "exceeds train.batch_size"),
        ("model.padding", "valid", "one of same, keras or None"),
        ("model.depth", "20", "model.depth works with densenet, wide_resnet, resnet"),
        ("seed", "-1", "from 0 to 2147483647, got -1"),
        ("train.deterministic", "yes", "true or false, got 'yes'"),
        ("mixup.beta", "1e999", "of at least 0, got inf"),
        ("model.name", "vgg", "did you mean 'vgg11'?"),
        ("penalty.draw", "importanc", "did you mean 'importance'?"),
        ("penalty.num_groups", "8", "needs penalty.name=fisher, got 'none'"),
        ("penalty.num_groups", "0", "an integer of at least 1, got 0"),
    ],
)
def test_bad_values_are_named_with_what_would_do(key, text, said):
    with pytest.raises(ConfigError) as error:
        load_config(BASE, [(key, text)])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_gradient_norm_penalty_is_whole_and_alone():
    chosen = ("penalty.name", "gradient_norm")
    assert load_config(BASE, [chosen]).penalty.radius == 0.05
    for key, text in (
        ("penalty.start_epoch", "3"),
        ("penalty.update_every", "3"),
        ("sam.radius", "0.1"),
    ):
        with pytest.raises(ConfigError, match=f"does not take {key}"):
            load_config(BASE, [chosen, (key, text)])


def test_traces_of_the_hessian_stand_in_records_of_epochs():
    every = [("measure.every_epochs", "2"), ("measure.hessian_every_epochs", "3")]
    load_config(BASE, every)  # without probes nothing is asked for
    with pytest.raises(ConfigError, match=r"hessian_every_epochs=3 does not fit"):
        load_config(BASE, [*every, ("measure.hessian_probes", "1")])
    for fitting in ("1", "2", "6"):
        other = ("measure.hessian_every_epochs", fitting)
        load_config(BASE, [every[0], other, ("measure.hessian_probes", "1")])


def test_groups_divide_what_the_penalty_sees():
    chosen = [("penalty.name", "fisher"), ("penalty.num_groups", "8")]
    assert load_config(BASE, chosen).penalty.num_groups == 8
    with pytest.raises(ConfigError, match="does not divide the 12 examples"):
        load_config(BASE, [*chosen, ("penalty.num_examples", "12")])


def test_rfp_needs_the_fisher_penalty():
    overrides = [("penalty.name", "gradient"), ("penalty.draw", "rademacher")]
    with pytest.raises(ConfigError, match=r"needs penalty\.name=fisher"):
        load_config(BASE, overrides)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config():\n    return 1 / 0\n", r"line 2.*ZeroDivisionError"),
        ("def get_config(:\n", "SyntaxError"),
        ("x = 1\n", "no function get_config"),
        ("def get_config():\n    return {}\n", "must return a ConfigDict"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        (
            "from experiments import base\ndef get_config():\n"
            "    c = base.get_config()\n    c.penaltyy = 1\n    return c\n",
            'Did you mean "penalty"',
        ),
        (
            "from experiments import base\ndef get_config():\n"
            "    c = base.get_config()\n    c.dataset.num_train = 'many'\n"
            "    return c\n",
            r"dataset.num_train must be an integer of at least 1 or None",
        ),
        (
            "from ml_collections import ConfigDict\ndef get_config():\n"
            "    return ConfigDict({'sed': 1})\n",
            "unknown key 'sed'; did you mean 'seed'",
        ),
    ],
)
def test_broken_experiment_files_get_one_line(tmp_path, text, said):
    path = tmp_path / "experiment.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        load_config(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'experiments/digits_fp.py'"):
        load_config("experiments/digit_fp.py")


def test_an_unknown_variant_is_refused():
    with pytest.raises(ConfigError, match="unknown variant 'fpp'"):
        load_config("experiments/digits_fp.py:fpp")


def test_a_saved_config_runs_no_code_and_gives_the_same(tmp_path):
    config = load_config("experiments/digits_fp.py:rfp", [("seed", "3")])
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": config.model_dump(mode="json")}))
    assert load_config(str(path)) == config


def test_a_saved_config_that_is_older_than_a_key_has_its_default(tmp_path):
    config = base.get_config().to_dict()
    del config["penalty"]["draw"], config["measure"], config["tracker"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": config}))
    assert load_config(str(path)) == Config()
    config["penalty"]["drow"] = "labels"
    path.write_text(json.dumps({"config": config}))
    with pytest.raises(ConfigError, match=r"unknown key 'penalty.drow'; did you mean"):
        load_config(str(path))


def test_archived_runs_load_as_they_were_recorded(request):
    paths = sorted((request.config.rootpath / "results").rglob("config.json"))
    assert paths
    # One of each experiment.
    for path in {path.parents[1]: path for path in paths}.values():
        recorded = flatten(json.loads(path.read_text())["config"])
        loaded = flat_config(load_config(str(path)))
        assert {key: loaded[key] for key in recorded} == recorded


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dataset": 3}, "unknown key 'dataset'; did you mean 'dataset.name'?"),
        ({"seed": {"a": 1}}, "unknown key 'seed.a'; did you mean 'seed'?"),
        ({"seed": True}, "seed must be an integer from 0 to 2147483647, got True"),
        ({"train": {"deterministic": 1}}, "true or false, got 1"),
        ({"optimizer": {"learning_rate": "0.1"}}, "a number above 0, got '0.1'"),
        ({"optimizer": {"decay_epochs": [1, True]}}, "integers of at least 1"),
        ({"optimizer": {"decay_epochs": [1, "2"]}}, "integers of at least 1"),
        ({"optimizer": {"decay_epochs": "12"}}, "integers of at least 1, got '12'"),
        ({"dataset": {"name": "a" * 500}, "model": {"name": "b" * 500}}, "model.name"),
        ({"a.b": {"c": 1}}, "unknown key 'a.b.c'"),
        ({"dataset": 3, "dataset.name": "a"}, "unknown key 'dataset'"),
    ],
)
def test_what_json_may_hold_is_taken_strictly(tmp_path, config, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": config}))
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert said in str(error.value)
    assert len(str(error.value)) < 250


def test_an_integer_will_do_for_a_number(tmp_path):
    rate = check_config({"optimizer.learning_rate": 1}).optimizer.learning_rate
    assert isinstance(rate, float)


@pytest.mark.parametrize("text", ["", "[]", '{"config": 3}', '{"seed": 1}', "\0"])
def test_a_broken_saved_config_gets_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(str(path))


def test_overrides_are_taken_out_of_the_command_line():
    argv = ["main.py", "--config=a.py", "--config.seed=1", "-config.a.b", "x", "--v"]
    rest, overrides = split_overrides(argv)
    assert rest == ["main.py", "--config=a.py", "--v"]
    assert overrides == [("seed", "1"), ("a.b", "x")]
