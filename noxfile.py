"""Tests on every supported Python, and on the lowest and newest dependencies.

nox and not tox: a session is a few lines of Python, which choose the constraints.

    nox                                  # all sessions, a quarter of an hour each
    nox -s tests-3.13 -- tests/curvature # one, and arguments for pytest

Pythons are those on the PATH. ``lowest`` has uv resolve each requirement of setup.cfg
to its lower bound, so that the bounds stay true.
"""

import nox

PYTHONS = ("3.11", "3.12", "3.13")
nox.options.default_venv_backend = "uv|virtualenv"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The pinned versions, as ``make install`` has them."""
    constraints = "py311" if session.python == "3.11" else "py312"
    session.install("-c", f"constraints/{constraints}.txt", "-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The lowest version of each direct dependency that setup.cfg allows."""
    session.install("--resolution=lowest-direct", "-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The newest versions there are, without constraints."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)
