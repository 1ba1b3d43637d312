"""Directions among parameters: by chance, and those in which a training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.errors import at_work, fail
from ..core.numbers.numerics import compute_dtype
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_arrays

_TO_SPARE = 0.2
"""Of the length of a path, what :attr:`PathDirections.spans` leaves beyond each of its ends."""


def random_direction(
    params: PyTree, seed: int = 0, *, output_axis: int = -1, vectors: bool = False
) -> PyTree:
    r"""A random direction, as long in every filter as the parameters are.

    $d_f \leftarrow d_f\,\|\theta_f\| / \|d_f\|$ of standard normal numbers, for each filter $f$,
    all weights that lead to one output. What a step of a given length does to a network depends on
    how large its weights are; a step in such a direction means the same in every layer.

    Arrays of fewer than two axes, which are biases and the scales of normalization, are not moved,
    as in the pictures of the paper.

    Args:
        params: tree of arrays.
        seed: of the random numbers.
        output_axis: the axis of outputs; a filter is what there is at one of its indices. It is
            the last of kernels in JAX, dense or convolutional.
        vectors: whether arrays of fewer than two axes are moved too, each as one filter.

    Returns:
        A tree like the parameters, in at least float32.

    Raises:
        ValueError: if nothing would be moved.

    References:
        Li et al. 2018, Visualizing the Loss Landscape of Neural Nets, arXiv:1712.09913.

    >>> import gdtx, jax.numpy as jnp
    >>> from gdtx import explore
    >>> params = {"w": jnp.array([[3.0, 0.1], [4.0, 0.0]]), "b": jnp.ones(2)}
    >>> direction = explore.random_direction(params)
    >>> jnp.linalg.norm(direction["w"], axis=0).round(3), direction["b"]
    (Array([5. , 0.1], dtype=float32), Array([0., 0.], dtype=float32))
    """
    rng = np.random.default_rng(seed)

    # NumPy's, because on a CPU JAX compiles every operation anew for every shape.
    def direction(p: Any) -> np.ndarray:
        numbers = rng.normal(size=p.shape)
        if jnp.iscomplexobj(p):
            numbers = numbers + 1j * rng.normal(size=p.shape)
        if p.ndim < 2 and not vectors:
            return np.zeros_like(numbers)
        axes = tuple(range(p.ndim))
        if p.ndim > 1:
            axes = tuple(axis for axis in axes if axis != output_axis % p.ndim)
        lengths, wanted = (
            np.sqrt(np.sum(np.square(np.abs(x)), axes, keepdims=True))
            for x in (numbers, np.asarray(p).astype(numbers.dtype))
        )
        return numbers * (wanted / np.where(lengths > 0, lengths, 1))

    with at_work("random_direction"):
        check_arrays(params, "params")
        found = jax.tree.map(direction, params)
        if not any(np.any(d) for d in jax.tree.leaves(found)):
            fail(
                ValueError,
                "nothing would be moved: params has no array other than 0 with two axes or more "
                "(vectors=True moves those of fewer)",
            )
    return jax.tree.map(lambda d, p: jnp.asarray(d, compute_dtype(p.dtype)), found, params)


@in_short
class PathDirections(NamedTuple):
    """The plane in which a training went: where it ended, and in which directions it went most.

    `coordinates` are those of its positions in the directions, from where it ended, a row each;
    `explained` is the share of its variance that lies along each direction.
    """

    center: PyTree
    directions: tuple[PyTree, ...]
    coordinates: np.ndarray
    explained: np.ndarray

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """From where to where to look along each direction, so that the path is seen."""
        low, high = self.coordinates.min(0), self.coordinates.max(0)
        # A direction in which nothing moved is shown at a tenth of the scale of the others.
        width = np.maximum(high - low, 0.1 * np.max(high - low))
        spare = np.where(width > 0, _TO_SPARE * width, 1.0)
        return tuple(zip((low - spare).tolist(), (high + spare).tolist(), strict=True))

    def _facts(self) -> dict[str, Any]:
        explained = tuple(self.explained.tolist())
        return {"positions": len(self.coordinates), "explained": explained, "center": self.center}


def path_directions(path: PyTree, number: int = 2) -> PathDirections:
    r"""The principal directions of a training path, and the path in their coordinates.

    Of positions $\theta_0 \dots \theta_n$, the first right singular vectors of the matrix with the
    rows $\theta_i - \bar\theta$; the coordinates are $d_k^\top (\theta_i - \theta_n)$. Almost all
    of a path is in few directions, and would be even if it were a random walk (Antognini &
    Sohl-Dickstein 2018): a path that looks flat says little about the landscape.

    Args:
        path: the parameters at every step, stacked along the first axis of every array.
        number: how many directions, the most important first.

    Returns:
        The last position, orthonormal directions like it, the path's coordinates, and the share of
        its variance along each direction. Directions point to the side from which the path came.

    Raises:
        ValueError: if arrays are not stacked alike, or there are fewer positions or parameters than
            directions.

    References:
        Li et al. 2018, see :func:`random_direction`, section 7; Antognini & Sohl-Dickstein 2018,
        PCA of high dimensional random walks with comparison to neural network training,
        arXiv:1806.08805.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> along = explore.path_directions(jnp.array([[4.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), 1)
    >>> along.center, along.coordinates.ravel().tolist()
    (Array([1., 0.], dtype=float32), [3.0, 1.0, 0.0])
    """
    leaves, structure = jax.tree.flatten(path)
    with at_work("path_directions"):
        check_arrays(path, "path")
        if len(steps := {np.shape(leaf)[:1] for leaf in leaves}) != 1 or () in steps:
            fail(
                ValueError,
                "positions must be stacked along the first axis of every array, got first axes "
                f"{sorted(steps)}",
            )
        flat = np.concatenate([_rows(leaf) for leaf in leaves], axis=1)
        if not 1 <= number <= min(flat.shape):
            fail(
                ValueError,
                f"number must be from 1 to {min(flat.shape)}, for {flat.shape[0]} positions and "
                f"{flat.shape[1]} parameters, got {number}",
            )
    _, sizes, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    vectors = vectors[:number]
    coordinates = (flat - flat[-1]) @ vectors.T
    side = np.where(coordinates[0] < 0, -1.0, 1.0)
    total = np.sum(sizes**2)
    return PathDirections(
        jax.tree.map(lambda leaf: leaf[-1], path),
        tuple(structure.unflatten(_unflattened(v, leaves)) for v in vectors * side[:, None]),
        coordinates * side + 0.0,  # no negative zeros
        sizes[:number] ** 2 / (total if total > 0 else 1.0),
    )


def _rows(leaf: Any) -> np.ndarray:
    """The positions as rows of real numbers: of complex ones, both parts."""
    x = np.asarray(leaf)
    wide = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
    return wide.reshape(len(x), -1).view(np.float64)


def _unflattened(vector: np.ndarray, leaves: Sequence[Any]) -> list[jax.Array]:
    parts, start = [], 0
    for leaf in leaves:
        x, dtype = leaf[-1], compute_dtype(leaf.dtype)
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        size = x.size * (2 if is_complex else 1)
        part = np.ascontiguousarray(vector[start : start + size])
        part = part.view(np.complex128) if is_complex else part
        parts.append(jnp.asarray(part.reshape(x.shape), dtype))
        start += size
    return parts
