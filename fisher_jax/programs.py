"""Traced programs: evaluated equation by equation, and what can be read off them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import jit_p

# Evaluates one equation, or returns None to have it evaluated as it stands.
Rule = Callable[[JaxprEqn, Sequence[Any]], Sequence[Any] | None]


# Those that make random numbers; keys are derived by others.
_RANDOM = frozenset(
    {"random_bits", "random_gamma", "rng_bit_generator", "rng_uniform", "threefry2x32"}
)


def evaluate(
    program: ClosedJaxpr,
    arguments: Sequence[Any],
    rule: Rule,
    *,
    is_merged: bool = True,
) -> list[Any]:
    """Evaluates a traced program, equation by equation, under ``rule``.

    Nested ``jit`` calls are entered; loops, conditionals, custom derivatives and
    rematerialised blocks are evaluated as they stand.

    Args:
        program: what to evaluate.
        arguments: what it is a function of.
        rule: evaluates some equations in its own way.
        is_merged: whether equal equations with the same operands are evaluated once.
            Not where ``rule`` tells equations apart, as the arrays of two arguments
            may be one.
    """
    return _evaluate(program, arguments, rule, {} if is_merged else None)


def _evaluate(
    program: ClosedJaxpr,
    arguments: Sequence[Any],
    rule: Rule,
    done: dict[Any, Any] | None,
) -> list[Any]:
    jaxpr = program.jaxpr
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*program.consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [read(v) for v in equation.invars]
        key = None if done is None else _identity(equation, operands)
        results = done[key][1] if done and key in done else rule(equation, operands)
        if results is None and equation.primitive is jit_p:
            nested = equation.params["jaxpr"]
            results = _evaluate(nested, operands, rule, done)
        if results is None:
            keywords = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **keywords)
            if not equation.primitive.multiple_results:
                results = [results]
        if done is not None and key is not None:
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


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of a program, those of nested ones too."""
    for equation in jaxpr.eqns:
        yield equation
        for nested in _nested(equation):
            yield from equations(nested)


def _nested(equation: JaxprEqn) -> list[Jaxpr]:
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, Jaxpr):
                found.append(one)
    return found


def computes_below_float32(program: ClosedJaxpr) -> bool:
    """Whether any value of the program is of a floating-point type below float32."""
    variables = [v for e in equations(program.jaxpr) for v in (*e.invars, *e.outvars)]
    dtypes = {getattr(v.aval, "dtype", None) for v in variables} - {None}
    floating = [d for d in dtypes if jax.dtypes.issubdtype(d, np.floating)]
    return any(jax.numpy.finfo(d).bits < 32 for d in floating)


def draws_for_itself(program: ClosedJaxpr, is_input: Sequence[bool]) -> bool:
    """Whether results depend on random numbers whose key comes from no input.

    Args:
        program: of a network.
        is_input: for each argument of the program whether it is one.
    """
    return any(random for _, random in _origins(program.jaxpr, is_input))


def _origins(jaxpr: Jaxpr, is_input: Sequence[bool]) -> list[tuple[bool, bool]]:
    """For each result: whether inputs, and random numbers without them, go into it."""
    origins: dict[Any, tuple[bool, bool]] = {
        variable: (flag, False)
        for variable, flag in zip(jaxpr.invars, is_input, strict=True)
    }

    def read(variable: Any) -> tuple[bool, bool]:
        if isinstance(variable, Literal):
            return False, False
        return origins.get(variable, (False, False))

    for equation in jaxpr.eqns:
        operands = [read(v) for v in equation.invars]
        from_input = any(flag for flag, _ in operands)
        is_random = any(random for _, random in operands)
        if equation.primitive.name in _RANDOM:
            is_random |= not from_input
        results = [(from_input, is_random)] * len(equation.outvars)
        for nested in _nested(equation):
            # A conditional's branches do not take its first operand.
            flags = [flag for flag, _ in operands][-len(nested.invars) :]
            if len(flags) == len(nested.invars):
                inner = _origins(nested, flags)
                if len(inner) == len(results):
                    results = [
                        (a or c, b or d)
                        for (a, b), (c, d) in zip(results, inner, strict=True)
                    ]
        origins.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


_NO_DERIVATIVE = "a jax.custom_vjp inside the function"


@contextlib.contextmanager
def forward_derivative(way_out: str) -> Iterator[None]:
    """Says what to do where a function inside has no forward derivative.

    Args:
        way_out: how the caller can do without.

    Raises:
        TypeError: in place of JAX's own for a ``jax.custom_vjp``.
    """
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if str(error).startswith(_NO_DERIVATIVE):  # said already, further in
            raise
        # As JAX names it when it meets the rule, and when it has linearised it.
        if "custom_vjp" not in str(error) and "custom_lin" not in str(error):
            raise
        raise TypeError(
            f"{_NO_DERIVATIVE} (as in flash attention) has no "
            "forward derivative, which is taken here; define its derivative by "
            f"jax.custom_jvp{way_out}"
        ) from error
