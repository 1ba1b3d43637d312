"""Factories that return their calls as data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import Voice
from ..numbers.values import at_hand, is_array
from ..outermost import is_outermost
from .call import Call
from .documented import documented
from .making import made
from .signature import Signature

P = ParamSpec("P")
C = TypeVar("C", bound=Call)


def _as_numbers(call: Call) -> dict[str, Any] | None:
    """The arguments with numbers in place of scalar arrays; None where one is not known."""
    arguments = dict(call.arguments)
    for name, value in arguments.items():
        if call.signature.is_scalar(name) and is_array(value):
            number = at_hand(value)
            if number.size != 1:
                return None
            arguments[name] = number.item()
    return arguments


def recorded(
    cls: type[C],
    factory: Callable[P, Any],
    schedules: bool,
    voice: Voice = Voice.CLEAR,
    exact: bool | tuple[str, ...] = False,
    whole: bool = False,
    leafwise: bool = False,
) -> Callable[P, C]:
    """`factory` made to return the call itself, as an instance of `cls`."""
    signature = Signature(factory, schedules, voice, exact, whole, leafwise)
    is_ours = (factory.__module__ or "").partition(".")[0] == __name__.partition(".")[0]

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> C:
        call = cls.of(make, signature.bind(args, kwargs))
        arguments = None
        if is_outermost() and not signature.scheduled(call.arguments):
            arguments = call.arguments if call.is_constant else _as_numbers(call)
        if arguments is not None:
            # What is wrong between arguments is known now, and should not wait for an update.
            try:
                result = made(lambda: call.body(arguments), call.is_constant, int(is_ours))
            except Exception as error:
                if not (call.is_constant or isinstance(error, ValueError)):
                    return call  # a number may do less than an array
                if not str(error).startswith(f"{signature.name}: "):
                    error.add_note(f"raised in {signature.name}(...)")
                raise
            if call.is_constant:
                call._result = result
        return call

    make.__doc__ = documented(factory)
    make.__gdtx_signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    return make
