"""Muon: momentum, made orthogonal."""

from __future__ import annotations

from typing import Any

from ..core.calls.kinds import Decay, NonNegative
from ..core.calls.types import TransformationLike
from ..core.combine import chain
from ..core.factory import transformation
from ..core.transformation import GradientTransformation
from ..links.arithmetic import scale_by_learning_rate
from ..links.decay import add_decayed_weights
from ..links.fraction import first_moment
from ..links.matrix.axes import among_matrices
from ..links.matrix.named import with_named_matrices
from ..links.matrix.orthogonal import ShapeFactor, orthogonalize, scale_by_shape
from ..links.matrix.polynomials import Polar
from ..links.moments import trace
from ..links.nesterov import nesterov_mean


@transformation
def scale_by_muon(
    momentum: Decay = 0.95,
    *,
    nesterov: bool = True,
    bias_correction: bool = False,
    polar: Polar = Polar(),
    shape_factor: ShapeFactor = "keller",
    axes: Any = "io",
) -> GradientTransformation:
    r"""Momentum, made orthogonal, times a factor for the shape.

    $v_t = \mu v_{t-1} + g_t$, $u_t = s \operatorname{NewtonSchulz}(g_t + \mu v_t)$.

    :func:`trace`, :func:`orthogonalize`, :func:`scale_by_shape`. The second takes scale away, so
    an average (:func:`ema`) in place of the sum gives the same; its bias correction too, but for
    the part that the gradient has in Nesterov's momentum.

    Args:
        momentum: $\mu$, decay of the sum of gradients.
        nesterov: whether the gradient counts once more, as $g_t + \mu v_t$; if not, it is $v_t$.
        bias_correction: whether gradient and momentum are weighed as in :func:`scale_by_nadam`,
            which differs in the first steps (Optax's Muon).
        polar: how the nearest orthogonal matrix is computed, see :class:`Polar`.
        shape_factor: $s$, `"keller"`, `"moonshot"` or a function of the numbers of inputs and
            outputs, see :func:`scale_by_shape`; None is 1.
        axes: what each axis of an array is, as a letter, see :func:`orthogonalize`.

    Returns:
        A transformation of matrices whose state holds one buffer per array.

    Raises:
        ValueError, TypeError: as :func:`orthogonalize` and :func:`scale_by_shape`.

    References:
        Jordan et al. 2024, see :func:`orthogonalize`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_muon(polar=gdtx.Polar("exact"))
    >>> tx.update(jnp.array([[5.0, 0.0]]), tx.init(jnp.zeros((1, 2))))[0].round(3)
    Array([[1.414, 0.   ]], dtype=float32)
    """
    if bias_correction:
        moment = nesterov_mean(momentum) if nesterov else first_moment(momentum)
    else:
        moment = trace(momentum, nesterov)
    return chain(
        moment,
        orthogonalize(polar, axes),
        scale_by_shape(shape_factor, axes),
    )


@transformation
def muon(
    learning_rate: NonNegative,
    matrices: Any = None,
    others: TransformationLike | None = None,
    *,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    bias_correction: bool = False,
    polar: Polar = Polar(),
    shape_factor: ShapeFactor = "keller",
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    r"""Muon for matrices, another method for all other parameters.

    $v_t = \mu v_{t-1} + g_t$, $\theta_t = \theta_{t-1} - \eta\,(s
    \operatorname{NewtonSchulz}(g_t + \mu v_t) + \lambda\,\theta_{t-1})$.

    :func:`scale_by_muon`, :func:`add_decayed_weights`, :func:`scale_by_learning_rate`. It is for
    the matrices between hidden layers. Embeddings and output layers are of two dimensions too, but
    do better with Adam, and no shape tells them apart: so matrices are those that are named.

    Args:
        learning_rate: $\eta$ of the matrices, a number, an array or a schedule.
        matrices, others: as in :func:`with_named_matrices`.
        momentum, nesterov, bias_correction, polar, shape_factor: as in :func:`scale_by_muon`.
        weight_decay, mask: $\lambda$ of the matrices, times the rate, and of which of them.

    Returns:
        A transformation whose state holds one buffer per matrix, and what `others` keeps.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `init`, if `matrices` is not
            given (the message lists arrays of two dimensions), an array named as a matrix does not
            have the axes of one, or another array has no method.

    References:
        Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks;
        Liu et al. 2025, Muon is Scalable for LLM Training, arXiv:2502.16982.

    >>> import gdtx, jax.numpy as jnp
    >>> params = {"embed": jnp.zeros((9, 3)), "w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    >>> tx = gdtx.muon(0.02, ["w"], others=gdtx.adamw(1e-3), polar=gdtx.Polar("exact"))
    >>> gradients = params | {"w": jnp.diag(jnp.array([3.0, 2.0, 1.0])), "b": jnp.ones(3)}
    >>> updates, state = tx.update(gradients, tx.init(params), params)
    >>> jnp.diag(updates["w"]), updates["b"]
    ... # doctest: +NORMALIZE_WHITESPACE
    (Array([-0.02, -0.02, -0.02], dtype=float32),
     Array([-0.001, -0.001, -0.001], dtype=float32))
    """
    hidden = chain(
        scale_by_muon(
            momentum,
            nesterov=nesterov,
            bias_correction=bias_correction,
            polar=polar,
            shape_factor=shape_factor,
            axes=among_matrices(matrices, "matrices"),
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
    return with_named_matrices(hidden, matrices, others)
