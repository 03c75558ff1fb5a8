"""Functions of a function that compile themselves, and keep what they compiled.

``fisher_trace(outputs_fn, ...)`` called eagerly would run operation by operation, a
hundred times slower than under ``jax.jit``, which cannot take a function as an argument
either. ``compiles_itself`` makes the program on the first call and finds it again on
the next ones, by the identity of the function that comes in.
"""

import collections
import contextlib
import functools
import inspect
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np
from jax.tree_util import Partial

from fisher_jax import programs

_P = ParamSpec("_P")
_R = TypeVar("_R")

MAX_PROGRAMS = 128  # functions whose programs are kept; the oldest goes first
MANY = 5  # programs of one place in the code, after which a warning is due
MAX_DEPTH = 3  # objects within objects whose arrays, floats and flags are looked at
# What is reached by an attribute and holds nothing that a network reads.
_NO_STATE = types.ModuleType, type, types.FunctionType, types.MethodType
# Keyword-only arguments that are arrays; all others are options.
_ARRAYS = ("mask",)
# An option that, where it is on, looks at the values of arrays: nothing is compiled.
_LOOKS = "check"
# A context manager changes it too, which only the attribute knows.
_DEBUG_NANS = "jax_debug_nans"


class _Kept(NamedTuple):
    """A program and what it was made of, held no longer than the function lives."""

    owner: "weakref.ref[Any]"
    surroundings: tuple[Any, ...]
    program: Callable[..., Any]


_kept: "collections.OrderedDict[tuple[Any, ...], _Kept]" = collections.OrderedDict()
_calls: collections.Counter[tuple[Any, ...]] = collections.Counter()
_compilations: collections.Counter[tuple[Any, ...]] = collections.Counter()


def compiles_itself(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compiles an eager call of ``function``, whose first argument is a function.

    Keyword-only arguments are static but for a mask, all others arrays. A program is
    found again for the same function: by identity, with the same arrays in its closure
    and in the globals that it names. A ``jax.tree_util.Partial`` is found by its
    function; its arrays are arguments. Programs go with their function. What is being
    traced already, and arguments that are no arrays, go to ``function`` as they are.
    """
    signature = inspect.signature(function)
    first = next(iter(signature.parameters))
    options = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in _ARRAYS
    }

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)
        network = given.pop(first)
        static = tuple((k, given[k]) for k in given if k in options)
        arrays = {k: v for k, v in given.items() if k not in options}
        if given.get(_LOOKS):
            return function(*args, **kwargs)
        captured: tuple[Any, ...] = ((), {})
        if isinstance(network, Partial):
            captured = (network.args, network.keywords)
            network = network.func
        if not _can_compile(network, static, (arrays, captured)):
            return function(*args, **kwargs)
        program = _program(function, first, network)
        if program is None:
            return function(*args, **kwargs)
        # Some rules are missed only when the program is lowered.
        with programs.forward_derivative(""):
            result: _R = program(static, arrays, captured)
        return result

    return wrapped


def num_programs() -> int:
    """How many functions have programs that are kept."""
    return len(_kept)


def forget() -> None:
    """Drops all programs and what was counted of them."""
    for record in (_kept, _calls, _compilations):
        record.clear()


def _can_compile(network: Any, static: tuple[Any, ...], arrays: Any) -> bool:
    # Under jax_debug_nans a NaN that says "unknown" may not come out of a program.
    if not callable(network) or getattr(jax.config, _DEBUG_NANS):
        return False
    try:
        hash(static)
    except TypeError:
        return False
    return all(map(_is_concrete_array, jax.tree.leaves(arrays)))


def _is_concrete_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "biufcV"
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)


def _program(
    function: Callable[..., Any], first: str, network: Callable[..., Any]
) -> Callable[..., Any] | None:
    """The program of ``function`` for a network; None where none can be kept."""
    # A bound method is made anew at each access; its object stays.
    method = network.__func__ if isinstance(network, types.MethodType) else None
    owner = network.__self__ if isinstance(network, types.MethodType) else network
    key = (function, id(owner), method)
    values = _surroundings(network)
    if any(isinstance(value, jax.core.Tracer) for value in values):
        return None
    place = _place(function, network)
    _calls[place] += 1
    found = _kept.get(key)
    if found is not None and found.owner() is owner and _agree(found, values):
        _kept.move_to_end(key)
        return found.program
    try:
        reference = weakref.ref(owner, lambda _: _kept.pop(key, None))
    except TypeError:
        return None
    _compilations[place] += 1
    _warn_of_many(place)

    # Only the weak reference: a program that held its function would never go.
    def run(static: tuple[Any, ...], arrays: dict[str, Any], captured: Any) -> Any:
        inner = reference() if method is None else types.MethodType(method, reference())
        args, keywords = captured
        if args or keywords:
            inner = Partial(inner, *args, **keywords)
        return function(**{first: inner}, **arrays, **dict(static))

    run.__name__ = run.__qualname__ = function.__name__
    program = jax.jit(run, static_argnums=0)
    _kept[key] = _Kept(reference, tuple(map(_mark, values)), program)
    _kept.move_to_end(key)
    while len(_kept) > MAX_PROGRAMS:
        _kept.popitem(last=False)
    return program


def _surroundings(network: Callable[..., Any]) -> list[Any]:
    """What a function reads besides its arguments, arrays one by one.

    The contents of its closure and the globals that it names, attributes of objects
    among them, and those of functions of the same file that it reaches by them. Of an
    object's objects arrays, floats and flags are seen, to a depth of MAX_DEPTH.
    """
    found: list[Any] = []
    seen = {id(network)}
    to_read = _inside(network, None)
    inner = network.func if isinstance(network, functools.partial) else network
    code = getattr(inspect.unwrap(inner), "__code__", None)
    file = getattr(code, "co_filename", "")
    for value in to_read:
        for leaf in jax.tree.leaves(value):
            if id(leaf) in seen or isinstance(leaf, types.ModuleType | type):
                continue
            seen.add(id(leaf))
            found.append(leaf)
            to_read += _inside(leaf, file)
    return found


def _inside(value: Any, file: str | None) -> list[Any]:
    """What a function of the file (None for any) reads, or an object's attributes."""
    if isinstance(value, functools.partial):
        return [value.args, value.keywords, value.func]
    if isinstance(value, types.MethodType):
        return [
            getattr(value.__self__, "__dict__", None),
            *_inside(value.__func__, file),
        ]
    function = inspect.unwrap(value) if callable(value) else value
    if isinstance(function, types.FunctionType):
        is_read = file is None or function.__code__.co_filename == file
        return list(_named(function)) if is_read else []
    if isinstance(value, np.ndarray | jax.Array):
        return []
    # Of objects in objects arrays, floats and flags, down to MAX_DEPTH.
    return _attributes(value, MAX_DEPTH)


def _attributes(value: Any, depth: int) -> list[Any]:
    found = []
    for leaf in jax.tree.leaves(getattr(value, "__dict__", None)):
        if isinstance(leaf, jax.Array | np.ndarray) or not hasattr(leaf, "__dict__"):
            found.append(leaf)
        elif depth and not isinstance(leaf, _NO_STATE):
            found += [
                inner
                for inner in _attributes(leaf, depth - 1)
                if isinstance(inner, jax.Array | np.ndarray | float | bool)
            ]
    return found


def _named(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    codes = [function.__code__]
    for code in codes:
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        for name in code.co_names:
            if name in function.__globals__:
                yield function.__globals__[name]


def _agree(kept: _Kept, values: list[Any]) -> bool:
    marks = kept.surroundings
    return len(marks) == len(values) and all(map(_is_same, marks, values))


def _mark(value: Any) -> Any:
    """What a value is told apart by later, without keeping it alive."""
    if isinstance(value, int | float | complex | str | bytes | None):
        return value
    try:
        return weakref.ref(value)
    except TypeError:
        return id(value)


def _is_same(mark: Any, value: Any) -> bool:
    if isinstance(mark, weakref.ref):
        return mark() is value
    if isinstance(value, int | float | complex | str | bytes | None):
        return type(mark) is type(value) and mark == value
    return bool(mark == id(value))


def _place(function: Callable[..., Any], network: Any) -> tuple[Any, ...]:
    """Where in the code a function is made, whichever time it is made there."""
    code = getattr(inspect.unwrap(network), "__code__", None)
    if code is None:
        return function.__name__, type(network).__name__, "", 0
    name = getattr(network, "__name__", type(network).__name__)
    return function.__name__, name, code.co_filename, code.co_firstlineno


def _warn_of_many(place: tuple[Any, ...]) -> None:
    """Warns once of a place whose functions are used less than twice each."""
    if _compilations[place] != MANY or _calls[place] >= 2 * MANY:
        return
    name, inner, file, line = place
    where = f" ({file}:{line})" if file else ""
    warnings.warn(
        f"{name} has compiled {MANY} programs for {inner!r}{where}, because almost "
        "every call passed a new function, or one with new arrays in its closure. "
        "Define it once, outside the loop, and pass what changes as arguments or "
        "with jax.tree_util.Partial(function, arrays); or call this under jax.jit",
        stacklevel=5,
    )
