"""The ground floor: a gradient transformation, and the decorator that makes a factory of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Generic, ParamSpec, overload

import jax
import jax.numpy as jnp

from .calls.call import Call, Signature
from .calls.kinds import Kind, register_kind
from .calls.types import TransformationLike
from .compiled import compiled_update
from .entrance import Dispatch, accepted, check_call, check_scalars, dispatch
from .errors import Voice, at_work, check_state, fail, summarize
from .leafwise import by_leaf
from .numbers.handover import Elsewhere, handed_over, inside, leaves_gdtx
from .numbers.numerics import increment, promoting
from .outermost import is_outermost, nested
from .scheduled import ScheduledState, Schedules, values_at
from .trees.following import following
from .trees.gathering import are_parts, on_whole, parts_of
from .trees.layout import mapped
from .trees.structs import has_structs, structs_of
from .trees.tree import PyTree, check_arrays, in_jax, scalar_like

if TYPE_CHECKING:
    from typing_extensions import ParamSpec  # with defaults, which `typing` has from 3.13 on

    P = ParamSpec("P", default=...)
    Q = ParamSpec("Q")

    # Flax and others annotate Optax's class. To type checkers ours is one of them, if Optax is
    # there; at run time it is not (:func:`gdtx.interop.to_optax` makes one that is).
    from optax import (  # pyright: ignore[reportMissingImports]
        GradientTransformationExtraArgs as _OptaxClass,
    )

    class _Base(Call, _OptaxClass): ...  # pyright: ignore[reportGeneralTypeIssues]

else:
    P = ParamSpec("P")
    _Base = Call

_Init = Annotated[Callable[[Any], Any], Kind("a function of the parameters", callable, takes=1)]
_Update = Annotated[
    Callable[..., Any], Kind("a function of updates, state and parameters", callable, takes=3)
]


@jax.tree_util.register_pytree_with_keys_class
class GradientTransformation(_Base, Generic[P]):
    """A pair of pure functions over trees of arrays, remembered as the call that made it.

    `init(params)` gives the first state; `update(updates, state, params=None, **extra_args)`
    gives the transformed updates and the next state. It unpacks as that pair.

    It is a pytree: numbers among its arguments are constants, arrays are leaves. So it prints as
    its constructor call, compares, hashes, pickles, and passes through `jax.jit`, `jax.vmap` and
    `jax.grad` as an argument.

    Args:
        init: function of the parameters that returns the first state.
        update: function of updates, state, parameters and any keywords that it names.
        layout: where in the state the states of other transformations lie: the containers of the
            state, with each transformation in the place of its own, and None in that of all else.
            Of a state that is another's as a whole, it is that transformation; of one that holds
            no other's, its class or `()`. With it, what reads and checks states sees inside; the
            module `gdtx.core.trees.layout` has an example.

    >>> import gdtx
    >>> gdtx.GradientTransformation(lambda params: (), lambda updates, state, params=None: (
    ...     updates, state)).init({})
    ()
    """

    __slots__ = ()

    def __new__(cls, init: _Init, update: _Update, layout: PyTree = None) -> GradientTransformation:
        pair = _pair.bind((init, update, layout), {})
        pair = {name: value for name, value in pair.items() if value is not None}
        return cls._with(cls, MappingProxyType(pair), None)

    @property
    def signature(self) -> Signature:
        return _pair if self.factory is GradientTransformation else super().signature

    @property
    def expression(self) -> GradientTransformation:
        """What the factory returns: the formula, one level down. Of a pair, the pair itself."""
        is_pair = self.factory is GradientTransformation
        return self if is_pair else _as_formula(self.result())

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    if TYPE_CHECKING:
        # It takes what the factory takes, with the first argument or without, and paths by `**`.
        @overload
        def replace(self, *args: P.args, **changes: P.kwargs) -> GradientTransformation[P]: ...
        @overload
        def replace(
            self: GradientTransformation[Concatenate[Any, Q]], *args: Q.args, **changes: Q.kwargs
        ) -> GradientTransformation[P]: ...
        @overload
        def replace(self) -> GradientTransformation[P]: ...
        def replace(self, *args: Any, **changes: Any) -> Any: ...

    # Methods, where Optax's class has fields that hold functions.

    def init(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, params: PyTree
    ) -> PyTree:
        """The state before the first update.

        Runs operation by operation, so that all of the state follows the sharding of the
        parameters; within `jax.jit`, what is like a parameter does. Of parameters that are
        `jax.ShapeDtypeStruct`s it is a tree of such, nothing allocated, with the shardings that it
        would have if they have some.

        Raises:
            TypeError: if a leaf is not a floating-point or complex array.
        """
        outermost = is_outermost()
        with nested(), at_work(self.signature.name, self.signature.voice), promoting():
            if outermost:
                check_arrays(params, "params")
                if has_structs(params):
                    return structs_of(self._init, params)
                return following(self._init(params), params)
            return self._init(params)

    def update(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        """The transformed updates and the next state.

        What the outermost update emits has the dtype of its parameter, or without parameters that
        of the incoming update; :func:`master_weights` and :func:`stochastic_rounding` keep what
        they need. Between transformations updates have the dtype they were computed in.

        Outside of a trace, the outermost update runs as one compiled function, cached for equal
        transformations. Extra arguments that are arrays or numbers may change freely; others,
        such as functions, are constants of that compilation. So are numbers among the arguments of
        the transformation: one that has come as many different ones is warned of.

        Raises:
            ValueError: if updates, state and parameters do not fit each other.
            TypeError: if a leaf is not a floating-point or complex array, or an extra argument
                that a link needs is missing.
        """
        if is_outermost():
            how = dispatch((updates, state, params), (self, extra_args))
            if how is not Dispatch.NO:
                return compiled_update(self, updates, state, params, extra_args, how, stacklevel=2)
        return self._inline(updates, state, params, extra_args)

    def _repr_latex_(self) -> str | None:
        """The formula, for notebooks, if something above writes formulas."""
        return f"$${_writers[-1](self)}$$" if _writers else None

    def _inline(
        self, updates: PyTree, state: PyTree, params: PyTree, extra_args: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        outermost = is_outermost()
        with nested(), at_work(self.signature.name, self.signature.voice):
            if not leaves_gdtx():
                return self._update(updates, state, params, extra_args)
            if outermost:
                check_call(updates, state, params)
            updates, params = map(in_jax, (updates, params))
            with promoting(), inside(updates, state):
                new, state = self._update(updates, state, params, extra_args)
                like = updates if params is None else params
                return handed_over(new, like, keep_exact=True), state

    def _init(self, params: PyTree) -> PyTree:
        if self.signature.whole and are_parts():
            return on_whole(self._init, params)
        if self.factory is GradientTransformation:
            return self.arguments["init"](params)
        schedules = self.signature.scheduled(self.arguments)
        if not schedules:
            check_scalars(self.signature, self.arguments)
            return self.expression.init(params)
        count = scalar_like(params, 0, jnp.int32)
        return ScheduledState(count, self._at(count, schedules).init(params))

    def _update(
        self, updates: PyTree, state: PyTree, params: PyTree, extra_args: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        if self.signature.whole and are_parts():
            whole = functools.partial(self._update_of_whole, state, extra_args)
            new, state = on_whole(whole, updates, params)
            return parts_of(new), state
        found = by_leaf(self, self._run, updates, state, params)
        return self._run(updates, state, params, extra_args) if found is None else found

    def _run(
        self, updates: PyTree, state: PyTree, params: PyTree, extra_args: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        if self.factory is GradientTransformation:
            update = self.arguments["update"]
            mapped(self.arguments.get("layout"), state, lambda part: part.state)
            result = update(updates, state, params, **accepted(update, extra_args))
            if type(result) is not tuple or len(result) != 2:
                came = summarize(result)
                fail(TypeError, f"update must return the pair (updates, state), got {came}")
            return result
        schedules = self.signature.scheduled(self.arguments)
        if not schedules:
            check_scalars(self.signature, self.arguments)
            return self.expression.update(updates, state, params, **extra_args)
        check_state(state, ScheduledState)
        inner = self._at(state.step, schedules)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, ScheduledState(increment(state.step), inner_state)

    def _update_of_whole(
        self, state: PyTree, extra_args: Mapping[str, Any], updates: PyTree, params: PyTree
    ) -> tuple[PyTree, PyTree]:
        return self._update(updates, state, params, extra_args)

    def _at(self, step: jax.Array, schedules: Schedules) -> GradientTransformation:
        values = values_at(step, schedules, self.signature)
        return self._formula({**self.arguments, **values})

    def _formula(self, arguments: Mapping[str, Any]) -> GradientTransformation:
        """What the factory returns, for arguments that are ready for use."""
        check_scalars(self.signature, arguments)
        return _as_formula(self.body(arguments))


_writers: list[Callable[[GradientTransformation], str]] = []


def write_formulas_with(latex: Callable[[GradientTransformation], str]) -> None:
    """Let notebooks show transformations as the LaTeX that this function writes."""
    _writers.append(latex)


def _as_formula(returned: Any) -> GradientTransformation:
    if not _is_pair(returned):
        fail(TypeError, f"the factory must return a transformation, got {summarize(returned)}")
    return _as_transformation(returned)


def _as_transformation(value: Any) -> GradientTransformation:
    if isinstance(value, GradientTransformation):
        return value
    return GradientTransformation(value.init, Elsewhere(value.update))


def _is_pair(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


TRANSFORMATION = Kind(
    "a transformation (a pair of init and update)", _is_pair, convert=_as_transformation
)
register_kind(GradientTransformation, TRANSFORMATION)
register_kind(TransformationLike, TRANSFORMATION)

_pair = Signature(GradientTransformation, schedules=False, voice=Voice.SILENT)
