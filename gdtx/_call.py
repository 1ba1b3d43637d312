"""Calls as data: what a factory returned, remembered as the factory and its arguments."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, Self, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from ._kinds import Kind, checked, is_array, kind_of

P = ParamSpec("P")
C = TypeVar("C", bound="Call")

_runtime = object()  # stands among the constants for an array, which is a leaf

# What hands remember from other libraries.
_elsewhere = {
    "lr": ("learning_rate",),
    "betas": ("b1", "b2"),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "beta_1": ("b1",),
    "beta_2": ("b2",),
    "beta": ("decay", "momentum", "b1"),
    "alpha": ("decay", "momentum"),
    "rho": ("decay", "b1"),
    "epsilon": ("eps",),
    "mu": ("momentum", "decay"),
    "step_size": ("learning_rate",),
    "wd": ("weight_decay",),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("min_step_size", "max_step_size"),
}


class Signature:
    """A factory's parameters with their kinds; binds and checks the arguments of a call."""

    def __init__(self, factory: Callable[..., Any], schedules: bool):
        self.name = factory.__name__
        self.schedules = schedules
        try:
            self.signature = inspect.signature(factory, eval_str=True)
        except NameError:
            # Annotations that only a type checker can resolve carry no kinds.
            self.signature = inspect.signature(factory)
        self.parameters = self.signature.parameters
        self.kinds: dict[str, tuple[Kind | None, bool]] = {
            name: kind_of(parameter) for name, parameter in self.parameters.items()
        }
        variadic = {p.kind: name for name, p in self.parameters.items()}
        self.varargs = variadic.get(inspect.Parameter.VAR_POSITIONAL)
        self.varkeywords = variadic.get(inspect.Parameter.VAR_KEYWORD)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name: defaults filled in, checked; `**` spread, `*` a tuple."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(self._explain(kwargs, error)) from None
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name == self.varargs:
                arguments[name] = tuple(
                    self._check(f"{name}[{i}]", item, name) for i, item in enumerate(value)
                )
            elif name == self.varkeywords:
                arguments |= {key: self._check(key, item, name) for key, item in value.items()}
            else:
                arguments[name] = self._check(name, value, name)
        return arguments

    def unbind(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments that :meth:`bind` takes apart."""
        kwargs = dict(arguments)
        if self.varargs is None:
            return (), kwargs
        names = list(self.parameters)
        leading = [kwargs.pop(name) for name in names[: names.index(self.varargs)]]
        return (*leading, *kwargs.pop(self.varargs)), kwargs

    def scheduled(self, arguments: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
        """The scalar hyperparameters that were given as functions of the step."""
        found = {}
        for name, value in arguments.items():
            kind, _ = self.kinds.get(name, (None, False))
            if kind is not None and kind.scalar and callable(value) and not is_array(value):
                found[name] = value
        return found

    def _check(self, label: str, value: Any, name: str) -> Any:
        kind, optional = self.kinds[name]
        return checked(f"{self.name}: {label}", value, kind, optional, self.schedules)

    def _explain(self, kwargs: Mapping[str, Any], error: TypeError) -> str:
        takes = f"{self.name} takes ({', '.join(self.parameters)})"
        for key in kwargs:
            if key not in self.parameters and self.varkeywords is None:
                return f"{self.name}: unknown argument {key!r}{self.suggestion(key)}; {takes}"
        return f"{self.name}: {error}; {takes}"

    def suggestion(self, key: str) -> str:
        likely = [name for name in _elsewhere.get(key, ()) if name in self.parameters]
        if key not in ("betas", "etas", "step_sizes"):
            likely = likely[:1]
        likely = likely or difflib.get_close_matches(key, self.parameters, n=1)
        return f", did you mean {' and '.join(map(repr, likely))}?" if likely else ""


def split(tree: Any, is_runtime: Callable[[Any], bool]) -> tuple[list[Any], Any]:
    """The leaves that may change from call to call, and a hashable layout with all others."""
    leaves, structure = jax.tree.flatten(tree)
    constants = tuple(_runtime if is_runtime(leaf) else leaf for leaf in leaves)
    return [leaf for leaf in leaves if is_runtime(leaf)], (structure, constants)


def merge(leaves: Iterable[Any], layout: Any) -> Any:
    """The tree that :func:`split` took apart, with these leaves."""
    structure, constants = layout
    rest = iter(leaves)
    return structure.unflatten([next(rest) if value is _runtime else value for value in constants])


class Call:
    """A factory and the arguments of one call to it.

    A pytree: arrays among the arguments are its leaves, everything else is constant and part of
    its equality and hash. Nested calls contribute their own leaves.
    """

    __slots__ = ("_arguments", "_constants", "_leaves")

    _constants: tuple[Any, ...]
    _leaves: tuple[Any, ...]
    _arguments: Mapping[str, Any] | None

    @classmethod
    def of(cls, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Self:
        leaves, layout = split(tuple(arguments.values()), is_array)
        return cls.tree_unflatten((factory, tuple(arguments), layout), leaves)

    @property
    def factory(self) -> Callable[..., Any]:
        return self._constants[0]

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name, defaults included."""
        if self._arguments is None:
            _, names, layout = self._constants
            values = merge(self._leaves, layout)
            self._arguments = MappingProxyType(dict(zip(names, values, strict=True)))
        return self._arguments

    @property
    def signature(self) -> Signature:
        return self.factory.__gdtx_signature__  # pyright: ignore[reportFunctionMemberAccess]

    def body(self, arguments: Mapping[str, Any]) -> Any:
        """What the undecorated factory returns for these arguments."""
        args, kwargs = self.signature.unbind(arguments)
        return self.factory.__wrapped__(*args, **kwargs)  # pyright: ignore[reportFunctionMemberAccess]

    def replace(self, **changes: Any) -> Self:
        """The same call with some arguments changed, checked like those of a new one.

        Raises:
            TypeError: for an unknown name; the message lists the known ones.
        """
        unknown = [name for name in changes if name not in self.arguments]
        if unknown:
            hint = self.signature.suggestion(unknown[0])
            raise TypeError(
                f"{self.signature.name}: no argument {unknown[0]!r} to replace{hint}; "
                f"it has {', '.join(self.arguments)}"
            )
        args, kwargs = self.signature.unbind({**self.arguments, **changes})
        return self.factory(*args, **kwargs)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        return self._leaves, self._constants

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Any]:
        _, names, (structure, constants) = self._constants
        values = structure.unflatten(constants)
        paths = [
            path for path, leaf in jax.tree_util.tree_flatten_with_path(values)[0]
            if leaf is _runtime
        ]  # fmt: skip
        keys = (
            jax.tree_util.GetAttrKey(names[first.idx] + jax.tree_util.keystr(tuple(rest)))
            for first, *rest in paths
        )
        return list(zip(keys, self._leaves, strict=True)), self._constants

    @classmethod
    def tree_unflatten(cls, constants: tuple[Any, ...], leaves: Any) -> Self:
        call = object.__new__(cls)
        call._constants = constants
        call._leaves = tuple(leaves)
        call._arguments = None
        return call

    def __reduce__(self) -> Any:
        return type(self).of, (self.factory, dict(self.arguments))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or not isinstance(other, Call):
            return False
        if self._constants != other._constants:
            return False
        return all(map(_same_array, self._leaves, other._leaves))

    def __hash__(self) -> int:
        described = tuple(
            (np.shape(leaf), str(getattr(leaf, "dtype", None))) for leaf in self._leaves
        )
        return hash((type(self), self._constants, described))

    def __repr__(self) -> str:
        return f"{self.signature.name}({', '.join(self._shown())})"

    def _shown(self) -> Iterator[str]:
        for name, value in self.arguments.items():
            if name == self.signature.varargs:
                yield from map(show, value)
            else:
                yield f"{name}={show(value)}"


def show(value: Any) -> str:
    """A value as a reader would write it; functions by their names."""
    if isinstance(value, Call):
        return repr(value)
    return getattr(value, "__name__", None) or repr(value)


def _same_array(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tracer) or isinstance(other, Tracer):
        return False
    if not (is_array(one) and is_array(other)):
        return bool(one == other)
    return one.dtype == other.dtype and np.array_equal(one, other)


def recorded(cls: type[C], factory: Callable[P, Any], schedules: bool) -> Callable[P, C]:
    """`factory` made to return the call itself, as an instance of `cls`."""
    signature = Signature(factory, schedules)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> C:
        return cls.of(make, signature.bind(args, kwargs))

    make.__gdtx_signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return make
