"""Traced programs evaluated equation by equation, to do some of them another way."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import jit_p

# Evaluates one equation, or returns None to have it evaluated as it stands.
Rule = Callable[[JaxprEqn, Sequence[Any]], Sequence[Any] | None]


def evaluate(program: ClosedJaxpr, arguments: Sequence[Any], rule: Rule) -> list[Any]:
    """Evaluates a traced program, equation by equation, under ``rule``.

    Nested ``jit`` calls are entered; loops, conditionals, custom derivatives and
    rematerialised blocks are evaluated as they stand. Equal equations with the same
    operands are evaluated once.
    """
    return _evaluate(program, arguments, rule, {})


def _evaluate(
    program: ClosedJaxpr, arguments: Sequence[Any], rule: Rule, done: dict[Any, Any]
) -> list[Any]:
    jaxpr = program.jaxpr
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*program.consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [read(v) for v in equation.invars]
        key = _identity(equation, operands)
        results = done[key][1] if key in done else rule(equation, operands)
        if results is None and equation.primitive is jit_p:
            results = _evaluate(equation.params["jaxpr"], operands, rule, done)
        if results is None:
            keywords = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **keywords)
            if not equation.primitive.multiple_results:
                results = [results]
        if key is not None:
            # The operands are kept with the results: an identity is only good for as
            # long as its object lives.
            done[key] = (operands, results)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _identity(equation: JaxprEqn, operands: Sequence[Any]) -> Any:
    """What two equations must share to have the same value; None if unknown."""
    if equation.effects:
        return None
    read = tuple(
        _constant_identity(v) if isinstance(v, Literal) else id(operand)
        for v, operand in zip(equation.invars, operands, strict=True)
    )
    try:
        params = tuple(sorted(equation.params.items()))
        hash((params, read))
    except TypeError:
        return None
    return equation.primitive, params, read


def _constant_identity(constant: Literal) -> Any:
    """What tells constants apart: a number's type and bits, an array's identity.

    Never the printed form, in which long arrays are shortened. An array lives as long
    as the program that holds it.
    """
    value: Any = constant.val
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return constant.aval, type(value), np.asarray(value).tobytes()
    return id(value)


def flatten(function: Callable[..., Any], *args: Any) -> ClosedJaxpr:
    """The program of ``function`` with nested ``jit`` calls entered."""
    program = jax.make_jaxpr(function)(*args)

    def inlined(*leaves: Any) -> list[Any]:
        return evaluate(program, leaves, lambda equation, operands: None)

    return jax.make_jaxpr(inlined)(*jax.tree.leaves(args))
