"""The ground floor: a gradient transformation, and the decorator that makes a factory of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    overload,
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import recompiled
from .call import Call, Signature, merge, split
from .errors import Voice, at_work, call_with, calling, check_state, fail, summarize
from .handover import Elsewhere, handed_over, inside, leaves_gdtx
from .kinds import Kind, below_one, register_kind
from .layout import mapped
from .numerics import increment, promoting
from .outermost import is_outermost, nested
from .recorded import recorded
from .sharding import constrain, known_shardings
from .structs import has_structs, structs_of
from .tree import PyTree, check_arrays, check_shapes, in_jax, leaves_as, scalar_like
from .types import TransformationLike
from .values import is_array, within_int32

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
            no other's, its class or `()`. With it, what reads and checks states sees inside.

    >>> import gdtx
    >>> gdtx.GradientTransformation(lambda params: (), lambda updates, state, params=None: (
    ...     updates, state)).init({})
    ()

    A combinator of one's own, with a layout:

    >>> @gdtx.transformation
    ... def after_each_other(**links: gdtx.GradientTransformation):
    ...     def init(params):
    ...         return {name: link.init(params) for name, link in links.items()}
    ...     def update(updates, state, params=None, **extra_args):
    ...         new = {}
    ...         for name, link in links.items():
    ...             updates, new[name] = link.update(updates, state[name], params, **extra_args)
    ...         return updates, new
    ...     return gdtx.GradientTransformation(init, update, layout=links)
    >>> rate = gdtx.linear_schedule(1.0, 0.0, 4)
    >>> tx = after_each_other(bound=gdtx.clip(1.0), step=gdtx.sgd(rate))
    >>> _, state = tx.update({}, tx.init({}))
    >>> float(gdtx.hyperparams(tx, state)["step.learning_rate"])
    0.75
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
        """The transformation that the factory returns: the formula, one level down. Of a pair, the
        pair itself."""
        if self.factory is GradientTransformation:
            return self
        _check_scalars(self, self.arguments)
        return _as_formula(self.result())

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

        Runs operation by operation, so that state follows the sharding of the parameters. Of
        parameters that are `jax.ShapeDtypeStruct`s it is a tree of such, nothing allocated, with
        the shardings that it would have if they have some.

        Raises:
            TypeError: if a leaf is not a floating-point or complex array.
        """
        outermost = is_outermost()
        with nested(), at_work(self.signature.name, self.signature.voice), promoting():
            if outermost:
                check_arrays(params, "params")
                if has_structs(params):
                    return structs_of(self._init, params)
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
        if is_outermost() and _can_dispatch((updates, state, params), (self, extra_args)):
            leaves, layout = split(extra_args, _is_runtime)
            leaves = list(map(within_int32, leaves))
            shardings = known_shardings((updates, state))
            result = _compiled(
                self, updates, state, params, leaves, layout=layout, shardings=shardings
            )
            if recompiled.due:
                recompiled.warn(stacklevel=2)
            return result
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
                _check(updates, state, params)
            updates, params = map(in_jax, (updates, params))
            with promoting(), inside(updates, state):
                new, state = self._update(updates, state, params, extra_args)
                like = updates if params is None else params
                return handed_over(new, like, keep_exact=True), state

    def _init(self, params: PyTree) -> PyTree:
        if self.factory is GradientTransformation:
            return self.arguments["init"](params)
        schedules = self.signature.scheduled(self.arguments)
        if not schedules:
            return self.expression.init(params)
        count = scalar_like(params, 0, jnp.int32)
        return ScheduledState(count, self._at(count, schedules).init(params))

    def _update(
        self, updates: PyTree, state: PyTree, params: PyTree, extra_args: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        if self.factory is GradientTransformation:
            update = self.arguments["update"]
            mapped(self.arguments.get("layout"), state, lambda part: part.state)
            result = update(updates, state, params, **_accepted(update, extra_args))
            if type(result) is not tuple or len(result) != 2:
                came = summarize(result)
                fail(TypeError, f"update must return the pair (updates, state), got {came}")
            return result
        schedules = self.signature.scheduled(self.arguments)
        if not schedules:
            return self.expression.update(updates, state, params, **extra_args)
        check_state(state, ScheduledState)
        inner = self._at(state.step, schedules)
        updates, inner_state = inner.update(updates, state.inner, params, **extra_args)
        return updates, ScheduledState(increment(state.step), inner_state)

    def _at(self, step: jax.Array, schedules: Mapping[str, Callable[[Any], Any]]) -> Any:
        values = {}
        for name, schedule in schedules.items():
            with calling(f"the schedule of {name}"):
                values[name] = value = within_int32(schedule(step))
            expected = f"the schedule of {name} must return a scalar"
            if not (is_array(value) or isinstance(value, int | float | np.generic)):
                fail(TypeError, f"{expected}, got {summarize(value)}")
            if jnp.iscomplexobj(value):
                fail(TypeError, f"{expected.replace('scalar', 'real')}, got {summarize(value)}")
            if jnp.shape(value) != ():
                fail(ValueError, f"{expected}, got {summarize(value)}")
            values[name] = below_one(jnp.asarray(value), self.signature.kind(name))
        return self._formula({**self.arguments, **values})

    def _formula(self, arguments: Mapping[str, Any]) -> GradientTransformation:
        """What the factory returns, for arguments that are ready for use."""
        _check_scalars(self, arguments)
        return _as_formula(self.body(arguments))


class ScheduledState(NamedTuple):
    """State of a transformation some of whose hyperparameters are schedules."""

    step: jax.Array
    inner: PyTree


_writers: list[Callable[[GradientTransformation], str]] = []


def write_formulas_with(latex: Callable[[GradientTransformation], str]) -> None:
    """Let notebooks show transformations as the LaTeX that this function writes."""
    _writers.append(latex)


# Of a factory that needs more than one argument no type says which of them `replace` may leave
# out, and so it takes all names.
@overload
def transformation(
    factory: _TakesOne[P], *, quiet: bool = ...
) -> Callable[P, GradientTransformation[P]]: ...
@overload
def transformation(
    factory: Callable[P, GradientTransformation], *, quiet: bool = ...
) -> Callable[P, GradientTransformation]: ...
@overload
def transformation(factory: None = None, *, quiet: bool = ...) -> _Decorator: ...
def transformation(factory: Callable[..., Any] | None = None, *, quiet: bool = False) -> Any:
    """Make a factory of transformations return them as data.

    What the decorated factory returns remembers the factory and its arguments. Arguments are
    bound when it is called, checked by the kinds in its annotations (`Decay`, `Positive`, ...),
    and may be numbers, arrays, or, where a scalar is asked for, schedules: functions of the number
    of updates done before. The body sees numbers and arrays only.

    Args:
        factory: function that returns a transformation, most often an expression of others.
        quiet: whether messages leave its name out between others, as those of :func:`chain` and
            :func:`join`, which say little of where something went wrong.

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
        return functools.partial(transformation, quiet=quiet)
    voice = Voice.QUIET if quiet else Voice.CLEAR
    return recorded(GradientTransformation, factory, schedules=True, voice=voice)


def _check(updates: PyTree, state: PyTree, params: PyTree) -> None:
    check_arrays(updates, "updates")
    if params is None:
        return
    structure = jax.tree.structure(updates)
    if jax.tree.structure(params) != structure == jax.tree.structure(state):
        fail(
            ValueError,
            "state and params are swapped: call update(updates, state, params)",
        )
    check_arrays(params, "params")
    leaves = leaves_as(structure, params, "params", "updates")
    if not _per_example(updates, leaves):
        check_shapes(updates, leaves, "parameter")


def _per_example(updates: PyTree, params: list[Any]) -> bool:
    """Whether all updates have one axis before those of their parameters. A first link may make
    one of each; those that need the parameters' shapes look for themselves."""
    shapes = [u.shape for u in jax.tree.leaves(updates)]
    batches = {shape[:1] for shape in shapes}
    return len(batches) == 1 and all(
        shape[1:] == p.shape and shape for shape, p in zip(shapes, params, strict=True)
    )


def _accepted(update: Callable[..., Any], extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The extra arguments that this function names, all if it takes any."""
    parameters = list(inspect.signature(update).parameters.values())[3:]
    for parameter in parameters:
        required = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if required and parameter.name not in extra_args:
            fail(
                TypeError,
                f"needs the extra argument {parameter.name!r}: {call_with(parameter.name)}",
            )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(extra_args)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in extra_args.items() if name in names}


def _check_scalars(tx: GradientTransformation, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        # Only where it is used, because a batch of values is what `jax.vmap` is given.
        if tx.signature.is_scalar(name) and is_array(value) and value.shape != ():
            came = f"{summarize(value)} (map over it with jax.vmap)"
            fail(ValueError, f"{name} must be a scalar, got {came}")


def _as_formula(returned: Any) -> GradientTransformation:
    if not _is_pair(returned):
        expected = "the factory must return a transformation"
        fail(TypeError, f"{expected}, got {summarize(returned)}")
    return _as_transformation(returned)


def _is_array_type(kind: type) -> bool:
    return issubclass(kind, jax.Array | np.ndarray | np.generic)


def _is_runtime(value: Any) -> bool:
    return is_array(value) or (
        isinstance(value, int | float | complex | np.generic) and not isinstance(value, bool)
    )


def _can_dispatch(arrays: PyTree, others: PyTree) -> bool:
    """Whether all is at hand: no tracer anywhere, nothing but arrays where arrays belong."""
    array_types = set(map(type, jax.tree.leaves(arrays)))
    types = array_types | set(map(type, jax.tree.leaves(others)))
    traced = any(issubclass(kind, Tracer) for kind in types)
    return not traced and all(map(_is_array_type, array_types))


@functools.partial(jax.jit, static_argnames=("layout", "shardings"))
def _compiled(
    tx: GradientTransformation,
    updates: PyTree,
    state: PyTree,
    params: PyTree,
    extra_leaves: list[Any],
    layout: Any,
    shardings: tuple[Any, ...] | None,
) -> tuple[PyTree, PyTree]:
    """What comes out is sharded as what went in: else the compiler would choose, and a state that
    moves at its first update compiles a second program."""
    recompiled.note(tx)
    result = tx._inline(updates, state, params, merge(extra_leaves, layout))
    return constrain(result, (updates, state), shardings)


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
