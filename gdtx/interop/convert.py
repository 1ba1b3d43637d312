"""Transformations as instances of Optax's class, and the other way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from ..core.calls.kinds import Kind
from ..core.calls.types import TransformationLike
from ..core.errors import summarize
from ..core.factory import transformation
from ..core.numbers.handover import Elsewhere
from ..core.transformation import GradientTransformation
from ..core.trees.tree import PyTree


@dataclass(frozen=True)
class _Init:
    """A transformation's `init`; unlike a bound method it equals that of an equal one."""

    tx: GradientTransformation

    def __call__(self, params: PyTree) -> PyTree:
        return self.tx.init(params)


@dataclass(frozen=True)
class _Update:
    """A transformation's `update`, likewise."""

    tx: GradientTransformation

    def __call__(
        self, updates: PyTree, state: PyTree, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, PyTree]:
        return self.tx.update(updates, state, params, **extra_args)


@dataclass(frozen=True)
class _Theirs:
    """A pair of functions from elsewhere, shown by the name of what made them."""

    pair: Any

    def __repr__(self) -> str:
        update = self.pair.update
        path = getattr(update, "__qualname__", type(update).__name__)
        return path.partition(".")[0]


_theirs = Kind(
    "a transformation of Optax (a pair of init and update)",
    lambda tx: callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None)),
    convert=lambda tx: tx if isinstance(tx, _Theirs) else _Theirs(tx),
)


def to_optax(tx: GradientTransformation) -> Any:
    """A transformation as an instance of Optax's own class.

    Most programs that take Optax's transformations take gdtx's as they are. This is for those that
    ask for the class, such as numpyro's `SVI`, and for those that want no arrays in what they keep
    as a constant, such as flax's `nnx.Optimizer`: there are none to be seen in the result. Optax's
    own wrappers, `optax.chain` and `optax.MultiSteps` among them, hand `value=` and other extra
    arguments to instances of the class only.

    Args:
        tx: any transformation.

    Returns:
        An `optax.GradientTransformationExtraArgs`. It has the same state, and forwards all extra
        arguments. Those of equal transformations are equal and hash equal.

    Raises:
        TypeError: if `tx` is not a transformation.
        ImportError: if Optax is not installed.

    >>> import gdtx, optax
    >>> tx = gdtx.interop.to_optax(gdtx.adam(1e-3))
    >>> isinstance(tx, optax.GradientTransformation), tx == gdtx.interop.to_optax(gdtx.adam(1e-3))
    (True, True)
    """
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"to_optax: tx must be a transformation of gdtx, got {summarize(tx)}")
    try:
        import optax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("to_optax: needs Optax: pip install optax") from error
    return optax.GradientTransformationExtraArgs(_Init(tx), _Update(tx))


@transformation
def from_optax(tx: Annotated[TransformationLike, _theirs]) -> GradientTransformation:
    """A transformation of Optax as one of gdtx.

    Where gdtx asks for a transformation, such as in :func:`gdtx.chain`, pairs of functions are
    taken as they are. This is for where none is asked for: to update with one outside of a trace,
    compiled; to print, compare and hash.

    Args:
        tx: a transformation of Optax, or any object with functions `init` and `update`.

    Returns:
        A transformation with the same state. It is given updates in the dtypes of their parameters,
        so that its state keeps those that it has. Extra arguments are forwarded if `tx` takes any.
        It pickles if the functions do, which those of Optax do not (cloudpickle takes them). It
        prints the name of the function that made `tx`, which for most of Optax's methods is chain.

    Raises:
        TypeError: if `tx` has no functions `init` and `update`.

    >>> import gdtx, optax
    >>> gdtx.interop.from_optax(optax.scale_by_adam())
    from_optax(tx=scale_by_adam)
    """
    init, update = tx.pair.init, tx.pair.update
    if isinstance(init, _Init) and isinstance(update, _Update) and init.tx == update.tx:
        return init.tx
    return GradientTransformation(init, Elsewhere(update))
