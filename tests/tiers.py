"""Which cases of a test run by default; the rest is marked slow (``make test-all``)."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], by_default: Iterable[Any]) -> list[Any]:
    """All cases of a parametrized test, those that are not ``by_default`` slow.

    For tests that compile much for each case and would fail together.
    """
    first, cases = list(by_default), list(cases)
    assert all(case in cases for case in first), "no such case"
    return [case if case in first else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
