"""Calls as data: what a factory returned, remembered as the factory and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, Self

import jax
import numpy as np

from ..numbers.values import is_array, is_same_array
from .functions import brief
from .kinds import number_like
from .making import made
from .signature import Signature
from .text import Printed, holds_calls

_runtime = object()  # stands among the constants for an array, which is a leaf
_unmade = object()  # stands for what a factory has not returned yet


def split(tree: Any, is_runtime: Callable[[Any], bool]) -> tuple[list[Any], Any]:
    """The leaves that may change from call to call, and a hashable layout with all others."""
    leaves, structure = jax.tree.flatten(tree)
    constants = tuple(_runtime if is_runtime(leaf) else leaf for leaf in leaves)
    if constants.count(_runtime) < len(leaves):
        leaves = [leaf for leaf, x in zip(leaves, constants, strict=True) if x is _runtime]
    return leaves, (structure, constants)


def merge(leaves: Iterable[Any], layout: Any) -> Any:
    """The tree that :func:`split` took apart, with these leaves."""
    structure, constants = layout
    if constants.count(_runtime) == len(constants):
        return structure.unflatten(leaves)
    rest = iter(leaves)
    return structure.unflatten([next(rest) if value is _runtime else value for value in constants])


class Call(Printed):
    """A factory and the arguments of one call to it.

    A pytree: arrays among the arguments are its leaves, everything else is constant and part of
    its equality and hash. Nested calls contribute their own leaves.
    """

    __slots__ = ("_arguments", "_constant", "_factory", "_flat", "_leafwise", "_result")

    _factory: Callable[..., Any]
    _arguments: Mapping[str, Any] | None
    _flat: tuple[tuple[Any, ...], tuple[Any, ...]] | None
    _result: Any
    _constant: bool | None
    _leafwise: bool | None

    @classmethod
    def of(cls, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Self:
        kept = {name: _kept(value) for name, value in arguments.items()}
        return cls._with(factory, MappingProxyType(kept), None)

    @classmethod
    def _with(cls, factory: Callable[..., Any], arguments: Any, flat: Any) -> Self:
        call = object.__new__(cls)
        call._factory, call._arguments, call._flat = factory, arguments, flat
        call._result, call._constant, call._leafwise = _unmade, None, None
        return call

    @property
    def is_constant(self) -> bool:
        """Whether there is no array among the leaves."""
        if self._constant is None:
            self._constant = all(map(_is_constant, self.arguments.values()))
        return self._constant

    @property
    def factory(self) -> Callable[..., Any]:
        return self._factory

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name, defaults included; calls among them are those that were given."""
        if self._arguments is None:
            leaves, (_, names, layout) = self._flattened()
            values = merge(leaves, layout)
            self._arguments = MappingProxyType(dict(zip(names, values, strict=True)))
        return self._arguments

    def _flattened(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The leaves, and all else: the factory, the names, and constants with their layout."""
        if self._flat is None:
            leaves, layout = split(tuple(self.arguments.values()), is_array)
            self._flat = tuple(leaves), (self.factory, tuple(self.arguments), layout)
        return self._flat

    @property
    def _leaves(self) -> tuple[Any, ...]:
        return self._flattened()[0]

    @property
    def _constants(self) -> tuple[Any, ...]:
        return self._flattened()[1]

    @property
    def signature(self) -> Signature:
        return self.factory.__gdtx_signature__  # pyright: ignore[reportFunctionMemberAccess]

    def body(self, arguments: Mapping[str, Any]) -> Any:
        """What the undecorated factory returns for these arguments."""
        args, kwargs = self.signature.unbind(arguments)
        return self.factory.__wrapped__(*args, **kwargs)  # pyright: ignore[reportFunctionMemberAccess]

    def result(self) -> Any:
        """What the factory returns for the arguments, made once: of arrays, which may be traced and
        are not to be kept beyond their trace, at every call."""
        if self._result is not _unmade:
            return self._result
        result = made(lambda: self.body(self.arguments), self.is_constant, unheard=2)
        if self.is_constant:
            self._result = result
        return result

    def parts(self) -> Iterator[tuple[str, str, Any]]:
        """Path, argument and value of all that was given; `*` and dicts of calls one by one."""
        for name, value in self.arguments.items():
            if name == self.signature.varargs:
                yield from ((str(i), name, item) for i, item in enumerate(value))
            elif holds_calls(value):
                yield from ((f"{name}.{key}", name, item) for key, item in value.items())
            else:
                yield name, name, value

    def paths(self) -> Iterator[str]:
        """The paths of all arguments, and of those of calls among them."""
        for path, _, value in self.parts():
            yield path
            if isinstance(value, Call):
                yield from (f"{path}.{below}" for below in value.paths())

    def replace(self, **changes: Any) -> Self:
        """The same call with some arguments changed, checked like those of a new one.

        Paths reach into other calls among the arguments, as in :func:`gdtx.replace`. Of a path and
        one below it, the outer one is changed first. An array stays an array: a number in its place
        becomes one of the same dtype, on the same devices, and compiles nothing again.

        Raises:
            TypeError: for an unknown name or path; the message lists the known ones.
        """
        known = list(self.paths())
        for path in changes:
            if path not in known and not any(path.startswith(f"{outer}.") for outer in changes):
                raise TypeError(
                    f"{self.signature.name}: no argument {path!r} to replace"
                    f"{self.signature.suggestion(path)}; it has {', '.join(known)}"
                )
        arguments = dict(self.arguments)
        for path, name, value in self.parts():
            new = changes.get(path, value)
            if is_array(value) and new is not value:
                label = f"{self.signature.name}: {path}"
                new = number_like(label, value, new, self.signature.kind(name))
            below = {
                longer.removeprefix(f"{path}."): inner
                for longer, inner in changes.items()
                if longer.startswith(f"{path}.")
            }
            if below and not isinstance(new, Call):
                raise TypeError(
                    f"{self.signature.name}: {path} is to be {brief(new)}, which has no "
                    f"{', '.join(map(repr, below))} to replace"
                )
            new = new.replace(**below) if below else new
            if name == self.signature.varargs:
                i = int(path)
                arguments[name] = (*arguments[name][:i], new, *arguments[name][i + 1 :])
            elif path != name:
                arguments[name] = {
                    key: new if f"{name}.{key}" == path else item
                    for key, item in arguments[name].items()
                }
            else:
                arguments[name] = new
        args, kwargs = self.signature.unbind(arguments)
        return self.factory(*args, **kwargs)

    def __dir__(self) -> list[str]:
        """What a user reads and calls: that of the subclass, and no plumbing."""
        mine = set(dir(type(self))) - set(dir(Call))
        public = {name for name in mine if not name.startswith("_")}
        return sorted(public | {"arguments", "factory", "replace"})

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
        return cls._with(constants[0], None, (tuple(leaves), constants))

    def __reduce__(self) -> Any:
        return type(self).of, (self.factory, dict(self.arguments))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or not isinstance(other, Call):
            return False
        if self._constants != other._constants:
            return False
        return all(map(is_same_array, self._leaves, other._leaves))

    def __hash__(self) -> int:
        described = tuple(
            (np.shape(leaf), str(getattr(leaf, "dtype", None))) for leaf in self._leaves
        )
        return hash((type(self), self._constants, described))


def _kept(value: Any) -> Any:
    """An argument in containers of its own, because the given ones may be changed."""
    of_calls = type(value) is tuple and all(isinstance(x, Call) for x in value)
    if isinstance(value, _UNCHANGING) or of_calls:
        return value
    leaves, structure = jax.tree.flatten(value, is_leaf=lambda x: isinstance(x, Call))
    return structure.unflatten(leaves)


def _is_constant(value: Any) -> bool:
    if isinstance(value, Call):
        return value.is_constant
    if isinstance(value, _UNCHANGING):
        return True
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return not any(map(is_array, jax.tree.leaves(value)))


_UNCHANGING = (Call, int, float, str, FunctionType, type(None))
