"""The decorator that makes a factory of transformations return them as data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, overload

from .calls.recorded import recorded
from .errors import Voice
from .transformation import GradientTransformation

if TYPE_CHECKING:
    from typing_extensions import ParamSpec  # with defaults, which `typing` has from 3.13 on

    P = ParamSpec("P", default=...)
    Q = ParamSpec("Q")

    class _TakesOne(Protocol[P]):
        """A factory that needs no more than its first argument."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> GradientTransformation: ...
        @overload
        def __call__(self, first: Any, /) -> GradientTransformation: ...

    class _Decorator(Protocol):
        @overload
        def __call__(self, factory: _TakesOne[Q], /) -> Callable[Q, GradientTransformation[Q]]: ...
        @overload
        def __call__(
            self, factory: Callable[Q, GradientTransformation], /
        ) -> Callable[Q, GradientTransformation]: ...

else:
    P = ParamSpec("P")


# Of a factory that needs more than one argument no type says which of them `replace` may leave
# out, and so it takes all names.
@overload
def transformation(
    factory: _TakesOne[P],
    *,
    quiet: bool = ...,
    exact: bool | tuple[str, ...] = ...,
    whole: bool = ...,
    leafwise: bool = ...,
) -> Callable[P, GradientTransformation[P]]: ...
@overload
def transformation(
    factory: Callable[P, GradientTransformation],
    *,
    quiet: bool = ...,
    exact: bool | tuple[str, ...] = ...,
    whole: bool = ...,
    leafwise: bool = ...,
) -> Callable[P, GradientTransformation]: ...
@overload
def transformation(
    factory: None = None,
    *,
    quiet: bool = ...,
    exact: bool | tuple[str, ...] = ...,
    whole: bool = ...,
    leafwise: bool = ...,
) -> _Decorator: ...
def transformation(
    factory: Callable[..., Any] | None = None,
    *,
    quiet: bool = False,
    exact: bool | tuple[str, ...] = False,
    whole: bool = False,
    leafwise: bool = False,
) -> Any:
    """Make a factory of transformations return them as data.

    What the decorated factory returns remembers the factory and its arguments. Arguments are
    bound when it is called, checked by the kinds in its annotations (`Decay`, `Positive`, ...),
    and may be numbers, arrays, or, where a scalar is asked for, schedules: functions of the number
    of updates done before. The body sees numbers and arrays only.

    Args:
        factory: function that returns a transformation, most often an expression of others.
        quiet: whether messages leave its name out between others, as those of :func:`chain` and
            :func:`join`, which say little of where something went wrong.
        exact: whether its state is to be kept as it is, and not in fewer bits by :func:`stored`, as
            a largest value or a first one; or the fields of its state of which that is so.
        whole: whether it looks at some axes of arrays, so that inside of :func:`sharded` it must
            see whole ones. For norms of arrays and of the tree it need not.
        leafwise: whether it acts array by array if all transformations among its arguments do, so
            that it may be traced once for arrays of one shape. Of a factory that does not say so,
            what it returns tells.

    Returns:
        The factory, with the same signature.

    >>> import gdtx
    >>> @gdtx.transformation
    ... def heavy_ball(learning_rate: gdtx.NonNegative, momentum: gdtx.Decay = 0.9):
    ...     return gdtx.chain(gdtx.trace(momentum), gdtx.scale_by_learning_rate(learning_rate))
    >>> heavy_ball(0.1)
    heavy_ball(learning_rate=0.1, momentum=0.9)
    """
    if factory is None:
        return functools.partial(
            transformation, quiet=quiet, exact=exact, whole=whole, leafwise=leafwise
        )
    voice = Voice.QUIET if quiet else Voice.CLEAR
    return recorded(
        GradientTransformation,
        factory,
        schedules=True,
        voice=voice,
        exact=exact,
        whole=whole,
        leafwise=leafwise,
    )
