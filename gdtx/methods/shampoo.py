"""Shampoo: gradients divided by roots of what they are along each of their axes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core.calls.kinds import Decay, FloatDType, Fraction, NonNegative, Scalar
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.graft import graft as grafted
from ..core.numbers.values import is_array, is_zero
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.correction import bias_correction
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment
from ..links.matrix.blockwise import Blocks, blockwise
from ..links.matrix.precondition import Roots, precondition
from ..links.matrix.vectors import with_others
from ..links.moments import ema, running_sum
from ..links.repair import only_finite


@transformation
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-4,
    *,
    relative_eps: NonNegative = 0.0,
    exponent: Scalar | None = None,
    graft: TransformationLike | None = None,
    roots: Roots = Roots(),
    blocks: Blocks = Blocks(),
    statistic_dtype: FloatDType | None = None,
) -> GradientTransformation:
    r"""Multiply a matrix from both sides by roots of its second moments; a tensor along all axes.

    Of a matrix $G_t$ with $m_t$ the average of gradients,

    $$u_t = (L_t + \epsilon I)^{-1/4}\, \hat m_t\, (R_t + \epsilon I)^{-1/4}, \quad
    L_t = \sum_{i \le t} G_i G_i^\top, \quad R_t = \sum_{i \le t} G_i^\top G_i,$$

    or the bias-corrected averages with $\beta_2$ in place of the sums. A tensor of order $k$ has
    such a matrix, to the power $-1/(2k)$, along each axis; on a vector it is full-matrix AdaGrad.
    Numbers (of order 0) are vectors of one.

    With `graft`, $u_t$ gets for each array the length of what `graft` makes of the same gradients,
    and before the step `roots.start` is that. It is :func:`blockwise` of :func:`precondition`, and
    :func:`graft` if asked for.

    Args:
        b1: $\beta_1$, decay of the average of gradients; the constant 0 keeps none.
        b2: $\beta_2$, decay of the averages of second moments; the constant 1 is the paper's sums.
        eps: $\epsilon$, in the units of $L$ and $R$, squared gradients. Roots that are some steps
            old enlarge directions that they have not seen by up to $\epsilon^{-1/2}$: it should not
            be far below the squares of gradients, unless roots are computed on every step.
        relative_eps: share of the largest eigenvalue of each matrix to add to all of them.
        exponent: power of every matrix; None is $-1/(2k)$ for arrays of order $k$.
        graft: transformation that sets the length, such as :func:`scale_by_adam`; None is the bare
            direction.
        roots: when and how roots are computed, see :class:`Roots`.
        blocks: how arrays are cut into blocks, each a parameter of its own, see :class:`Blocks`.
        statistic_dtype: in which $L$ and $R$ are kept. In bfloat16 every step rounds them by
            chance, see :func:`recur`: averages are right on average and off by up to
            $2^{-8} / \sqrt{8 (1 - \beta_2)}$ of each number in root mean square. (Half of the
            memory and exact is :func:`packed`, in an expression with :func:`precondition`.)

    Returns:
        A transformation whose state holds for each axis of each block two matrices, statistic and
        root; one buffer for each array if `b1` is not 0; and the number of roots that failed.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Gupta, Koren & Singer 2018, Shampoo: Preconditioned Stochastic Tensor Optimization,
        arXiv:1802.09568; Anil et al. 2020, Scalable Second Order Optimization for Deep Learning,
        arXiv:2002.09018 (blocks, grafting); Shi et al. 2023, A Distributed Data-Parallel PyTorch
        Implementation of the Distributed Shampoo Optimizer, arXiv:2309.06497 (averages).

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_shampoo()
    >>> g = jnp.array([[3.0, 1.0], [0.0, 0.5]])
    >>> u = tx.update(g, tx.init(g))[0]
    >>> jnp.linalg.svd(u, compute_uv=False).round(3)  # the first step is orthogonal
    Array([1., 1.], dtype=float32)
    """
    mean = identity() if is_zero(b1) else first_moment(b1)
    if not is_array(b2) and b2 == 1:
        statistic = running_sum(dtype=statistic_dtype)
    else:
        if is_array(b2):  # which may come to 1, where there is no average
            b2 = jnp.minimum(b2, 1 - jnp.finfo(jnp.result_type(b2, float)).epsneg)
        statistic = chain(ema(b2, dtype=statistic_dtype), bias_correction(b2))
    preconditioned = precondition(mean, statistic, eps, relative_eps, exponent, roots)
    direction = blockwise(preconditioned, blocks)
    if graft is None:
        return direction
    # What is not finite is nothing to the preconditioner, and would be poison to an average.
    return grafted(direction, chain(only_finite(), graft), start=roots.start)


@transformation
def shampoo(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Fraction = 0.999,
    eps: NonNegative = 1e-4,
    *,
    relative_eps: NonNegative = 0.0,
    exponent: Scalar | None = None,
    graft: TransformationLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    roots: Roots = Roots(),
    blocks: Blocks = Blocks(),
    statistic_dtype: FloatDType | None = None,
    others: TransformationLike | None = None,
) -> GradientTransformation:
    r"""Shampoo, with decoupled weight decay if asked for.

    $\theta_t = \theta_{t-1} - \eta\,(u_t + \lambda\,\theta_{t-1})$ with $u_t$ that of
    :func:`scale_by_shampoo`.

    :func:`scale_by_shampoo`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`.

    Args:
        learning_rate: $\eta$, a number, an array or a schedule.
        b1, b2, relative_eps, exponent, roots, blocks: as in :func:`scale_by_shampoo`.
        eps: $\epsilon$, added to eigenvalues, in the units of squared gradients.
        graft: transformation that sets the length, such as :func:`scale_by_adam`.
        weight_decay, mask: as in :func:`add_decayed_weights`.
        statistic_dtype: in which second moments are kept, see :func:`scale_by_shampoo`.
        others: as in :func:`with_others`.

    Returns:
        A transformation with the state of :func:`scale_by_shampoo`, and what `others` keeps.

    Raises:
        TypeError: from `update`, for complex updates.

    References:
        Gupta, Koren & Singer 2018, see :func:`scale_by_shampoo`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.shampoo(0.1, b1=0.0, b2=1.0)
    >>> g = jnp.array([[0.0, 3.0], [0.5, 0.0]])
    >>> tx.update(g, tx.init(g))[0][::-1].round(3)
    Array([[-0.1, -0. ],
           [-0. , -0.1]], dtype=float32)
    """
    method_of_matrices = chain(
        scale_by_shampoo(
            b1,
            b2,
            eps,
            relative_eps=relative_eps,
            exponent=exponent,
            graft=graft,
            roots=roots,
            blocks=blocks,
            statistic_dtype=statistic_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return with_others(method_of_matrices, others)
