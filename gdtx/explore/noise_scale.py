"""The gradient noise scale: the batch size at which a gradient is as much signal as noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.numbers.numerics import square
from ..core.trees.short import in_short
from ..core.trees.tree import PyTree


@in_short
class NoiseScale(NamedTuple):
    r"""$\operatorname{tr} \Sigma$ of the gradients of single examples and $|G|^2$ of their mean.

    Averages of many of these, number by number, are estimates too; an average of noise scales is
    not, because a ratio of unbiased estimates is biased.
    """

    trace: jax.Array
    squared_norm: jax.Array

    @property
    def scale(self) -> jax.Array:
        r"""$\operatorname{tr} \Sigma / |G|^2$, in examples."""
        return self.trace / self.squared_norm

    def _facts(self) -> dict[str, Any]:
        return {"scale": self.scale, **self._asdict()}


def gradient_noise_scale(
    loss_fn: Callable[[PyTree, Any], jax.Array],
    params: PyTree,
    data: Any,
    batch_size: int | None = None,
    *,
    together: int = 64,
) -> NoiseScale:
    r"""The simple noise scale of McCandlish et al., $\operatorname{tr} \Sigma / |G|^2$.

    $G$ is the mean and $\Sigma$ the covariance of the gradients of single examples. At a batch size
    of it, noise and signal are equal: $E|g_B - G|^2 = \operatorname{tr} \Sigma / B$.

    Without a batch size the data are all that there is to learn, and both are computed exactly:
    $G$ is the gradient on all of them, $\operatorname{tr} \Sigma$ the mean of $|g_i - G|^2$. With
    one, the data are a sample, and :func:`two_batch_noise_scale` estimates both without bias from
    the gradients of batches of that size and that of all $n$ examples.

    Args:
        loss_fn: function of parameters and a batch that returns the mean of the examples' losses.
        params: where.
        data: tree of arrays, examples along the first axis.
        batch_size: of the smaller batches of the estimate, into which the data are cut in order;
            it must divide their number. 1 is the most precise.
        together: how many gradients are held at once.

    Returns:
        Trace and squared norm, and their ratio as `scale`.

    Raises:
        ValueError: if the examples cannot be cut into batches of this size.

    References:
        McCandlish et al. 2018, An Empirical Model of Large-Batch Training, arXiv:1812.06162.

    >>> import jax.numpy as jnp
    >>> from gdtx import explore
    >>> loss = lambda w, x: jnp.mean(0.5 * (w - x) ** 2)
    >>> exact = explore.gradient_noise_scale(loss, jnp.array(0.0), jnp.array([1.0, 3.0]))
    >>> exact.trace, exact.squared_norm, exact.scale  # gradients -1 and -3
    (Array(1., dtype=float32), Array(4., dtype=float32), Array(0.25, dtype=float32))
    """
    n = count_examples("gradient_noise_scale", data)
    size = 1 if batch_size is None else batch_size
    if size < 1 or n % size or (batch_size is not None and size == n):
        raise ValueError(
            f"gradient_noise_scale: batch_size must be a divisor of the {n} examples, and smaller, "
            f"got {batch_size}"
        )
    gradient = jax.grad(loss_fn)

    @jax.jit
    def estimate(params: PyTree, data: Any) -> NoiseScale:
        whole = gradient(params, data)
        batches = jax.tree.map(lambda x: jnp.reshape(x, (n // size, size, *jnp.shape(x)[1:])), data)

        def deviation(batch: Any) -> jax.Array:
            g = gradient(params, batch)
            return _squared(jax.tree.map(jnp.subtract, g, whole) if batch_size is None else g)

        squares = jax.lax.map(deviation, batches, batch_size=together).mean()
        if batch_size is None:
            return NoiseScale(squares, _squared(whole))
        return two_batch_noise_scale((size, squares), (n, _squared(whole)))

    return estimate(params, data)


def two_batch_noise_scale(small: tuple[Any, Any], big: tuple[Any, Any]) -> NoiseScale:
    r"""Trace and squared norm, without bias, from gradients of two batch sizes.

    As $E|g_B|^2 = |G|^2 + \operatorname{tr} \Sigma / B$, with $b < B$

    $$|G|^2 \approx \frac{B |g_B|^2 - b |g_b|^2}{B - b}, \qquad
    \operatorname{tr} \Sigma \approx \frac{|g_b|^2 - |g_B|^2}{1 / b - 1 / B}.$$

    Data-parallel training has both at hand: the gradient on a device and the mean over all.

    Args:
        small: $b$ and $|g_b|^2$.
        big: $B$ and $|g_B|^2$.

    References:
        McCandlish et al. 2018, An Empirical Model of Large-Batch Training, arXiv:1812.06162,
        appendix A.1.

    >>> from gdtx import explore
    >>> explore.two_batch_noise_scale((1, 3.0), (2, 2.0))
    NoiseScale(scale=2, trace=2, squared_norm=1)
    """
    (few, noisy), (many, steady) = small, big
    trace = (noisy - steady) / (1 / few - 1 / many)
    return NoiseScale(trace, (many * steady - few * noisy) / (many - few))


def count_examples(who: str, data: Any) -> int:
    """How many examples there are along the first axis of every array, the same in all."""
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(
            f"{who}: data must have the examples along the first axis of every array, "
            f"got first axes {sorted(sizes)}"
        )
    ((count,),) = sizes
    return count


def _squared(tree: PyTree) -> jax.Array:
    return sum((jnp.sum(square(x)) for x in jax.tree.leaves(tree)), jnp.zeros(()))
