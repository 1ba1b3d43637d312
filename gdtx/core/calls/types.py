"""What type checkers and editors make of arguments and of factories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax

# A factory's argument has two types. Its caller may give a number, an array, a schedule or a pair
# from another library; its body gets a number, an array or one of our transformations. So each
# protocol says what a caller may give, and its base Any lets the body use what it gets.
if TYPE_CHECKING:
    _InBody = Any
else:
    _InBody = object


class ScheduleLike(Protocol, _InBody):  # pyright: ignore[reportGeneralTypeIssues]
    """A schedule: any function of the step, 0 on the first update."""

    def __call__(self, step: Any, /) -> Any: ...


class NumPyValue(Protocol, _InBody):  # pyright: ignore[reportGeneralTypeIssues]
    """An array or a scalar of NumPy."""

    def __array__(self) -> Any: ...


class TransformationLike(Protocol, _InBody):  # pyright: ignore[reportGeneralTypeIssues]
    """A transformation of ours or of another library: a pair of functions."""

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def update(self) -> Callable[..., Any]: ...


Number = float | jax.Array | NumPyValue
NumberOrSchedule = Number | ScheduleLike
