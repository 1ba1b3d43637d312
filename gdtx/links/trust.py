"""Updates in proportion to their parameters, layer by layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import NonNegative, Positive
from ..core.combine import chain, join
from ..core.factory import transformation
from ..core.numbers.norms import scaled_norms
from ..core.numbers.values import is_zero
from ..core.rules import identity, set_to_zero, with_params
from ..core.select import masked
from ..core.transformation import GradientTransformation
from ..formula import (
    PARAMETERS,
    Expression,
    Reader,
    Symbol,
    apply,
    expression,
    formula_of,
    t,
    total,
)
from .decay import add_decayed_weights


@transformation
def scale_by_trust_ratio(
    *, trust_coefficient: Positive = 1.0, eps: NonNegative = 0.0, mask: Any = None
) -> GradientTransformation:
    r"""Give every array of the updates a length in proportion to its parameter's.

    $u \leftarrow r\,u$ with $r = c\,\|\theta\| / (\|u\| + \epsilon)$, or 1 where $\|\theta\|$ or
    $\|u\|$ is 0. The norms are those of one array each, and neither overflows.

    Args:
        trust_coefficient: $c$, factor of the ratio.
        eps: $\epsilon$, added to the norm of the update.
        mask: which parameters have a ratio, in any form of :func:`masked`; all by default. Those
            left out, most often biases and the scales of normalization, pass as they are.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if it is called
            without the parameters.

    References:
        You, Gitman & Ginsburg 2017, Large Batch Training of Convolutional Networks,
        arXiv:1708.03888; You et al. 2020, see :func:`lamb`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_trust_ratio()
    >>> tx.update(jnp.array([3.0, 4.0]), (), jnp.array([0.0, 10.0]))[0]
    Array([6., 8.], dtype=float32)
    """
    ratio = with_params(lambda u, p: trusted(u, p, trust_coefficient, eps))
    return ratio if mask is None else masked(ratio, mask)


@formula_of(scale_by_trust_ratio, trust_coefficient="c", eps=r"\epsilon")
def _(u: Expression, reader: Reader, trust_coefficient: Any, eps: Any, mask: Any) -> Expression:
    return _trusted(u, reader, _chosen(reader, "w", mask), trust_coefficient, eps)


def _chosen(reader: Reader, letter: str, mask: Any) -> Expression:
    """The parameters, 0 where the mask leaves them out."""
    if mask is None:
        return PARAMETERS
    weights = reader.read(masked(with_params(lambda u, p: p), mask), expression(0))
    return reader.define((Symbol(letter, time=t),), weights)


def _trusted(
    u: Expression, reader: Reader, weights: Any, coefficient: Any, eps: Any, weight_decay: Any = 0,
    decayed: Any = 0,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    size, length = apply("norm", u), apply("norm", weights)
    terms = [size, weight_decay * apply("norm", decayed), *([] if is_zero(eps) else [eps])]
    ratio = coefficient * length / total(*terms)
    ratio = apply("cases", ratio, apply("greater", length * size, 0), 1)
    ratio = reader.define((Symbol("r", time=t),), ratio)
    return ratio * total(u, weight_decay * decayed)


@transformation
def scale_by_lars(
    weight_decay: NonNegative = 0.0,
    mask: Any = None,
    trust_coefficient: Positive = 0.001,
    eps: NonNegative = 0.0,
    trust_mask: Any = None,
) -> GradientTransformation:
    r"""Add decayed weights, and give every array a length in proportion to its parameter's.

    $$u_t = r_t\,(g_t + \lambda \theta_{t-1}), \quad
    r_t = \frac{c\,\|\theta_{t-1}\|}{\|g_t\| + \lambda \|\theta_{t-1}\| + \epsilon},$$

    and $r_t = 1$ where $\|\theta_{t-1}\|$ or $\|g_t\|$ is 0. The norms are those of one array each.

    Args:
        weight_decay: $\lambda$, 0 where it is masked out, in the ratio too.
        mask: which parameters decay, in any form of :func:`masked`; all by default.
        trust_coefficient: $c$, the length of a step relative to that of the weights; $\eta$ in the
            paper.
        eps: $\epsilon$, added to the denominator of the ratio.
        trust_mask: which parameters have a ratio; for the others it is 1. All by default.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if a hyperparameter is out of its range; from `update`, if it is called
            without the parameters.

    References:
        You, Gitman & Ginsburg 2017, Large Batch Training of Convolutional Networks,
        arXiv:1708.03888, algorithm 1. Optax takes the norm of the sum $g_t + \lambda \theta_{t-1}$
        in the denominator, which is at most the paper's sum of norms: that is
        :func:`add_decayed_weights` before :func:`scale_by_trust_ratio`.

    >>> import gdtx, jax.numpy as jnp
    >>> tx = gdtx.scale_by_lars(weight_decay=0.5, trust_coefficient=1.0)
    >>> params = jnp.array([0.0, 10.0])
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0]
    Array([3., 9.], dtype=float32)
    """
    # A leaf whose weights count as 0 has the ratio 1.
    branches = {
        "g": identity(),
        "weights": chain(set_to_zero(), add_decayed_weights(1, trust_mask)),
        "decay": chain(set_to_zero(), add_decayed_weights(weight_decay, mask)),
    }
    decays = not is_zero(weight_decay)
    # A pair of its own, because expressions show it by its name and not by that of its merge.
    return GradientTransformation(
        *join(
            lambda g, weights, decay: trusted(
                g, weights, trust_coefficient, eps, decay if decays else None
            ),
            **branches,
        )
    )


@formula_of(scale_by_lars, weight_decay=r"\lambda", trust_coefficient="c", eps=r"\epsilon")
def _(
    u: Expression, reader: Reader, weight_decay: Any, mask: Any, trust_coefficient: Any, eps: Any,
    trust_mask: Any,
) -> Expression:  # fmt: skip
    weights = _chosen(reader, "w", trust_mask)
    if is_zero(weight_decay):
        return _trusted(u, reader, weights, trust_coefficient, eps)
    decayed = _chosen(reader, "d", mask)
    return _trusted(u, reader, weights, trust_coefficient, eps, weight_decay, decayed)


def trusted(
    u: jax.Array, weights: jax.Array, coefficient: Any, eps: Any, decay: jax.Array | None = None
) -> jax.Array:
    r"""$c\,\|w\| / (\|u\| + \|d\| + \epsilon)\,(u + d)$; $u + d$ where $\|w\|$ or $\|u\|$ is 0.

    Every factor is near 1 but the powers of two, so whatever the result can hold comes out.
    """
    power, size = scaled_norms(u)
    weight_power, weight_size = scaled_norms(weights)
    has_no_ratio = (size == 0) | (weight_size == 0)
    if decay is not None:
        u = u + decay
        decay_power, decay_size = scaled_norms(decay)
        common = jnp.minimum(power, decay_power)  # under which the larger of the norms is near 1
        size = size * (common / power) + decay_size * (common / decay_power)
        power = common
    ratio = coefficient * weight_size / (jnp.where(has_no_ratio, 1, size) + eps * power)
    return jnp.where(has_no_ratio, u, u * power * ratio / weight_power)
