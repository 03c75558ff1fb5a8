"""The examples in the docstrings of public functions run, and print what they show."""

import doctest
import inspect

import jax
import jax.numpy as jnp
import optax
import pytest

from fisher_jax import baselines, curvature, penalties

PUBLIC = {
    name: getattr(package, name)
    for package in (curvature, penalties, baselines)
    for name in package.__all__
}
EXAMPLES = {
    name: found
    for name, value in PUBLIC.items()
    if callable(value) and hasattr(value, "__module__")
    for found in doctest.DocTestFinder(recurse=False).find(
        value, name, globs={"jax": jax, "jnp": jnp, "optax": optax} | PUBLIC
    )
    if found.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name):
    with jax.enable_x64(False):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert runner.run(EXAMPLES[name]).failed == 0


@pytest.mark.parametrize("package", [curvature, penalties, baselines])
def test_every_public_function_and_likelihood_has_an_example(package):
    public = {name: getattr(package, name) for name in package.__all__}
    wanted = {name for name, v in public.items() if is_function_or_likelihood(v)}
    assert wanted
    assert wanted <= set(EXAMPLES)


def is_function_or_likelihood(value):
    """Not what functions return, types of arguments and numbers."""
    is_class = inspect.isclass(value) and not issubclass(value, tuple)
    return is_class or inspect.isfunction(value)
