"""The examples in the docstrings of public functions run, and print what they show."""

import doctest

import jax
import jax.numpy as jnp
import pytest

from fisher_jax import curvature, penalties

PUBLIC = {
    name: getattr(package, name)
    for package in (curvature, penalties)
    for name in package.__all__
}
EXAMPLES = {
    name: found
    for name, value in PUBLIC.items()
    if callable(value) and hasattr(value, "__module__")
    for found in doctest.DocTestFinder(recurse=False).find(
        value, name, globs={"jax": jax, "jnp": jnp} | PUBLIC
    )
    if found.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name):
    with jax.enable_x64(False):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert runner.run(EXAMPLES[name]).failed == 0


def test_there_are_examples():
    assert {"fisher_trace", "fisher_penalty", "eigenpairs"} <= set(EXAMPLES)
