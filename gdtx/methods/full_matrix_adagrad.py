"""AdaGrad as its regret bound has it: with the root of the whole matrix of second moments."""

from __future__ import annotations

from ..core.calls.kinds import NonNegative, PositiveCount
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.matrix.full_matrix import scale_by_full_matrix
from ..links.matrix.window import scale_by_window


@transformation
def full_matrix_adagrad(
    learning_rate: NonNegative,
    eps: NonNegative = 1e-7,
    block_size: PositiveCount | None = None,
    window: PositiveCount | None = None,
) -> GradientTransformation:
    r"""AdaGrad with the full matrix, for few parameters; in blocks or on a window, for more.

    $\theta_t = \theta_{t-1} - \eta\,(\sum_{i \le t} g_i g_i^\top + \epsilon I)^{-1/2} g_t$.

    :func:`scale_by_full_matrix`, or with a window :func:`scale_by_window`, and
    :func:`scale_by_learning_rate`. Of gradients of one number, and of those that never have two
    numbers other than 0 at once, it is `adagrad(learning_rate, 0.0, eps)`.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule.
        eps, block_size: as in :func:`scale_by_full_matrix`.
        window: over how many of the last steps the sum goes; None for all.

    Returns:
        A transformation whose state is that of the link.

    Raises:
        ValueError: if a hyperparameter is out of its range, or both a block size and a window are
            given; from `init`, if an array is too large for its matrix.

    References:
        Duchi, Hazan & Singer 2011, see :func:`scale_by_full_matrix`; Agarwal et al. 2018, see
        :func:`scale_by_window`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.full_matrix_adagrad(5.0)
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round()
    Array([-3., -4.], dtype=float32)
    """
    if window is None:
        link = scale_by_full_matrix(eps, block_size)
    elif block_size is None:
        link = scale_by_window(window, eps)
    else:
        raise ValueError(
            "full_matrix_adagrad: a window needs no blocks, "
            f"got block_size={block_size} and window={window}"
        )
    return chain(link, scale_by_learning_rate(learning_rate))
