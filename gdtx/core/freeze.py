"""Parameters that stay as they are."""

from __future__ import annotations

from typing import Any

from .calls.types import TransformationLike
from .factory import transformation
from .rules import set_to_zero
from .select import partition
from .transformation import GradientTransformation
from .trees.choice import labels_of


@transformation
def freeze(tx: TransformationLike, what: Any) -> GradientTransformation:
    r"""Keep some leaves as they are: their updates are zero, and they take no state.

    :func:`partition` of `tx` and :func:`set_to_zero`.

    Args:
        tx: transformation of the other leaves.
        what: which leaves are frozen, in any form of a mask, see :func:`masked`.

    Returns:
        A transformation whose state is that of `tx` on the leaves that are trained.

    Raises:
        ValueError, TypeError: as :func:`masked`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.freeze(gdtx.sgd(0.1), ["encoder/**"])
    >>> params = {"encoder": {"w": jnp.ones(1)}, "head": jnp.ones(1)}
    >>> tx.update(params, tx.init(params))[0]
    {'encoder': {'w': Array([0.], dtype=float32)}, 'head': Array([-0.1], dtype=float32)}
    """
    transforms = {"frozen": set_to_zero(), "trained": tx}
    return partition(transforms, labels_of(what, chosen="frozen", other="trained"))


@transformation
def trainable(tx: TransformationLike, what: Any) -> GradientTransformation:
    r"""Train some leaves only: updates of the others are zero, and they take no state.

    :func:`freeze` of the others.

    Args:
        tx: transformation of the leaves that are trained.
        what: which leaves are trained, in any form of a mask, see :func:`masked`.

    Returns:
        A transformation whose state is that of `tx` on the leaves that are trained.

    Raises:
        ValueError, TypeError: as :func:`masked`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.trainable(gdtx.sgd(0.1), lambda path, leaf: leaf.ndim == 1)
    >>> params = {"w": jnp.ones((1, 1)), "b": jnp.ones(1)}
    >>> tx.update(params, tx.init(params))[0]
    {'b': Array([-0.1], dtype=float32), 'w': Array([[0.]], dtype=float32)}
    """
    transforms = {"frozen": set_to_zero(), "trained": tx}
    return partition(transforms, labels_of(what, chosen="trained", other="frozen"))
