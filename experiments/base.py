"""Every configuration key at its default; the other files start from here.

    python main.py --config=experiments/base.py --workdir=runs/base

trains SimpleCNN on scikit-learn's digits without any penalty, for a first look. The
keys are declared, with what each accepts, in ``fisher_jax/train/keys.py``.
"""

from ml_collections import ConfigDict

from fisher_jax.train.keys import Config


def get_config(arg: str = "") -> ConfigDict:
    """Returns the defaults, locked: assigning to an unknown key is an error.

    Args:
        arg: the text after ``:`` in ``--config=FILE.py:arg``; there are no variants
            of this file, so it must be empty.
    """
    if arg:
        raise ValueError(f"base.py has no variants, got {arg!r}")
    return ConfigDict(Config().model_dump()).lock()
