"""The loss on lines and planes through the parameters, as data and drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.errors import at_work, fail, summarize
from ..core.numbers.numerics import compute_dtype
from ..core.trees.apply_updates import apply_updates
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree, check_arrays, check_shapes, leaves_as
from .directions import PathDirections, random_direction
from .plots import new_axes


@in_short
class Landscape(NamedTuple):
    """The loss along one direction or in the plane of two.

    `losses[i]`, or `losses[i, j]`, is the loss `coordinates[0][i]` times the first direction, and
    `coordinates[1][j]` times the second, away from the center.
    """

    center: PyTree
    directions: tuple[PyTree, ...]
    coordinates: tuple[np.ndarray, ...]
    losses: np.ndarray

    def _facts(self) -> dict[str, Any]:
        spans = tuple((along[0], along[-1]) for along in self.coordinates)
        low, high = np.nanmin(self.losses), np.nanmax(self.losses)
        return {"points": self.losses.shape, "spans": spans, "losses": (low, high)}


def loss_landscape(
    loss: Callable[[PyTree], jax.Array],
    params: PyTree,
    directions: int | Sequence[PyTree] = 2,
    *,
    spans: Sequence[Any] = (-1.0, 1.0),
    points: int = 41,
    seed: int = 0,
    batch_size: int = 64,
) -> Landscape:
    r"""The loss on a line or in a plane through the parameters.

    $L(\theta + a\,d_1 + b\,d_2)$ on a grid of $a$ and $b$, or without $b$ on a line.

    By default the directions are random, and in every filter as long as the parameters, see
    :func:`random_direction`: then pictures of different networks can be compared, where others
    show how large the weights are. Those in which a training went are in
    :func:`path_directions`. It is one compiled program.

    Args:
        loss: function of the parameters that returns a number.
        params: tree of arrays.
        directions: how many random ones, 1 or 2; or one or two trees like the parameters, in a
            list.
        spans: the first and the last coordinate, or of each direction such a pair.
        points: how many coordinates along each direction; of an odd number between opposite ends
            the one in the middle is 0.
        seed: of the random directions.
        batch_size: how many losses are computed at a time, with as many copies of the parameters.

    Returns:
        Coordinates and losses, with the directions.

    Raises:
        ValueError: if the directions are not like the parameters, or not one or two; if `loss`
            returns no scalar.

    References:
        Li et al. 2018, Visualizing the Loss Landscape of Neural Nets, arXiv:1712.09913.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> line = explore.loss_landscape(
    ...     lambda w: w[0] ** 2 + w[1], jnp.zeros(2), [jnp.array([1.0, 0.0])], points=5)
    >>> line.coordinates[0].tolist(), line.losses.tolist()
    ([-1.0, -0.5, 0.0, 0.5, 1.0], [1.0, 0.25, 0.0, 0.25, 1.0])
    """
    params = jax.tree.map(jnp.asarray, params)
    with at_work("loss_landscape"):
        check_arrays(params, "params")
        if isinstance(directions, int):
            seeds = np.random.SeedSequence(seed).generate_state(max(directions, 0))
            directions = [random_direction(params, int(each)) for each in seeds]
        directions = _checked(directions, params)
        if jnp.shape(value := jax.eval_shape(loss, params)) != ():
            fail(ValueError, f"loss must return a scalar, got {summarize(value)}")
    ends = np.broadcast_to(np.asarray(spans, float), (len(directions), 2))
    coordinates = tuple(np.linspace(first, last, points) for first, last in ends)

    dtype = jnp.finfo(compute_dtype(*(p.dtype for p in jax.tree.leaves(params)))).dtype
    grid = np.array(list(itertools.product(*coordinates)))
    batch_size = min(batch_size, len(grid))
    # A rest would be a batch of another size, and another program to compile.
    padded = np.pad(grid, ((0, -len(grid) % batch_size), (0, 0)))

    def losses(params: PyTree, directions: Sequence[PyTree], grid: jax.Array) -> jax.Array:
        def at(steps: jax.Array) -> jax.Array:
            def change(*leaves: jax.Array) -> jax.Array:
                moved = [steps[k] * d for k, d in enumerate(leaves)]
                return sum(moved[1:], moved[0])

            return loss(apply_updates(params, jax.tree.map(change, *directions)))

        return jax.lax.map(at, grid, batch_size=batch_size)

    found = np.asarray(jax.jit(losses)(params, directions, jnp.asarray(padded, dtype)))
    shape = tuple(map(len, coordinates))
    return Landscape(params, directions, coordinates, found[: len(grid)].reshape(shape))


def plot_landscape(
    landscape: Landscape,
    path: PathDirections | Any = None,
    ax: Any = None,
    levels: int | Sequence[float] = 16,
) -> Any:
    """Draw a landscape: a curve, or contours; with a training path on it if there is one.

    Contours lie closer the lower they are, so that those of a parabola are evenly spaced. Needs
    matplotlib, which the extra `viz` installs.

    Args:
        landscape: of :func:`loss_landscape`.
        path: of :func:`path_directions`, or coordinates, a row for each position. On a curve,
            where the loss of the line is and not the path's own.
        ax: axes of matplotlib to draw on, new ones by default.
        levels: how many contours, or the losses at which they are.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the path does not have a coordinate for each direction of the landscape.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> plane = explore.loss_landscape(lambda w: jnp.sum(w**2), jnp.ones((2, 2)), points=9)
    >>> explore.plot_landscape(plane).get_xlabel()
    'direction 1'
    """
    count = len(landscape.directions)
    track = None if path is None else np.asarray(getattr(path, "coordinates", path))
    if track is not None and track.shape[1:] != (count,):
        raise ValueError(
            f"plot_landscape: path must have shape (positions, {count}), got {track.shape}"
        )
    ax = new_axes("plot_landscape") if ax is None else ax
    losses = np.where(np.isfinite(landscape.losses), landscape.losses, np.nan)
    explained = getattr(path, "explained", None)
    names = [f"direction {k + 1}" for k in range(count)]
    if explained is not None:
        names = [f"{name} ({share:.0%} of the path)"
                 for name, share in zip(names, explained, strict=True)]  # fmt: skip
    if count == 1:
        (at,) = landscape.coordinates
        ax.plot(at, losses)
        if track is not None:
            _draw_path(ax, track[:, 0], np.interp(track[:, 0], at, losses))
        ax.set(xlabel=names[0], ylabel="loss")
        return ax
    drawn = ax.contour(*landscape.coordinates, losses.T, levels=_levels(losses, levels), alpha=0.8)
    ax.clabel(drawn, drawn.levels[1::2], fmt="%.3g", fontsize="x-small")
    if track is not None:
        _draw_path(ax, track[:, 0], track[:, 1])
    ax.set(xlabel=names[0], ylabel=names[1])
    return ax


def _checked(directions: Sequence[PyTree], params: PyTree) -> tuple[PyTree, ...]:
    if not isinstance(directions, list | tuple) or len(directions) not in (1, 2):
        fail(ValueError, f"directions must be one or two, in a list, got {summarize(directions)}")
    for k, direction in enumerate(directions):
        leaves = leaves_as(jax.tree.structure(params), direction, f"directions[{k}]", "params")
        check_shapes(params, leaves, "direction")
    return tuple(directions)


def _draw_path(ax: Any, x: np.ndarray, y: np.ndarray) -> None:
    ax.plot(x, y, ".-", color="black", linewidth=1, markersize=3)
    ax.plot(x[0], y[0], "o", color="black", markerfacecolor="white", label="start")
    ax.plot(x[-1], y[-1], "*", color="black", markersize=10, label="end")
    ax.legend(loc="best")


def _levels(losses: np.ndarray, levels: Any) -> np.ndarray:
    """Where contours are; evenly spaced in the root of the height above the lowest loss."""
    if not isinstance(levels, int):
        return np.asarray(levels)
    low, high = np.nanmin(losses), np.nanmax(losses)
    return low + (high - low) * (np.arange(1, levels + 1) / (levels + 1)) ** 2
