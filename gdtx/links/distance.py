"""Estimates of how far the solution is, for methods that find their rate by them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.calls.kinds import Decay, NonNegative, Positive
from ..core.combine import chain, join, multiply
from ..core.factory import transformation
from ..core.let import value_of
from ..core.memory import counted
from ..core.numbers.norms import inner_product
from ..core.numbers.numerics import one_minus_power, sqrt
from ..core.numbers.shards import total
from ..core.rules import identity
from ..core.transformation import GradientTransformation
from ..core.tree_memory import recur_tree
from ..core.trees.tree import PyTree
from ..formula import (
    PARAMETERS,
    Expression,
    Reader,
    Symbol,
    apply,
    formula_of,
    t,
)
from .arithmetic import scale

_GAMMA = Symbol(r"\gamma", time=t)
_R, _S, _D = (Symbol(rf"\bullet {name}", time=t - 1) for name in "rsd")


def times_estimate(learning_rate: Any, corrections: Any) -> GradientTransformation:
    r"""$u \leftarrow \eta \gamma_t d_t\,u$, with the estimate $d$ of the :func:`let` around it."""
    links = [join(multiply, u=identity(), d=value_of("d")), scale(learning_rate)]
    return chain(*links, *([] if corrections is None else [corrected_rate(*corrections)]))


@transformation
def corrected_rate(b1: Decay, b2: Decay) -> GradientTransformation:
    r"""$u \leftarrow \gamma_t\,u$ with $\gamma_t = \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$: the
    biases of both moments of Adam, corrected in the rate."""
    return counted(lambda t: lambda u: _correction(b1, b2, t) * u)


@formula_of(corrected_rate)
def _(u: Expression, reader: Reader, b1: Any, b2: Any) -> Expression:
    return _gamma(reader, b1, b2) * u


@transformation
def prodigy_distance(
    learning_rate: NonNegative, b3: Decay, initial: Positive, coefficient: Positive,
    corrections: Any, safeguard_warmup: bool,
) -> GradientTransformation:  # fmt: skip
    r"""$d_t$ of :func:`prodigy`, one number, with what it is found from."""

    def rule(
        g: PyTree, params: PyTree, step: Any, start: PyTree, s: PyTree, r: Any, d: Any
    ) -> tuple[Any, dict[str, Any]]:
        # In units of the first estimate, because its square is small.
        share = (d / initial) ** 2
        rate = share * _rate(learning_rate, corrections, step)
        r = b3 * r + rate * _inner(g, jax.tree.map(jnp.subtract, start, params))
        weight = share if safeguard_warmup else rate
        s = jax.tree.map(lambda s, g: b3 * s + weight * g, s, g)
        return d, {"start": start, "s": s, "r": r, "d": _larger(d, coefficient * r, s)}

    return recur_tree(rule, start=lambda params: params, s=_zeros, r=0.0, d=initial)


@formula_of(prodigy_distance, coefficient="c", plain="initial")
def _(
    u: Expression, reader: Reader, learning_rate: Any, b3: Any, initial: Any, coefficient: Any,
    corrections: Any, safeguard_warmup: bool,
) -> Expression:  # fmt: skip
    u = reader.atom(u)
    rate = learning_rate if corrections is None else learning_rate * _gamma(reader, *corrections)
    weight = _D**2 if safeguard_warmup else rate * _D**2
    gone = apply("inner", u, PARAMETERS.at(0) - PARAMETERS)
    return _estimate(reader, {
        _R: b3 * _R + rate * _D**2 * gone,
        _S: b3 * _S + weight * u,
        _D: _largest(coefficient * _R.at(t)),
    }, initial)  # fmt: skip


@transformation
def dadapt_distance(
    learning_rate: NonNegative, b3: Decay, initial: Positive, corrections: Any
) -> GradientTransformation:
    r"""$d_t$ of :func:`dadapt_adamw`, one number, with what it is found from.

    The denominator $A_t$ is what :func:`let` calls `A`.
    """

    def rule(
        g: PyTree,
        A: PyTree,  # noqa: N803
        step: Any,
        s: PyTree,
        r: Any,
        d: Any,
    ) -> tuple[Any, dict[str, Any]]:
        rate = d * _rate(learning_rate, corrections, step)
        # Both in units of the first estimate, because it is small.
        r = b3 * r + rate * _inner(g, jax.tree.map(jnp.divide, s, A))
        s = jax.tree.map(lambda s, g: b3 * s + (1 - b3) * (rate / initial) * g, s, g)
        return d, {"s": s, "r": r, "d": _larger(d, r, s)}

    return recur_tree(rule, s=_zeros, r=0.0, d=initial)


@formula_of(dadapt_distance, plain="initial")
def _(
    u: Expression, reader: Reader, learning_rate: Any, b3: Any, initial: Any, corrections: Any
) -> Expression:
    u = reader.atom(u)
    rate = learning_rate if corrections is None else learning_rate * _gamma(reader, *corrections)
    ahead = apply("inner", u, _S / reader.values["A"])
    return _estimate(reader, {
        _R: b3 * _R + rate * _D * ahead,
        _S: b3 * _S + (1 - b3) * rate * _D * u,
        _D: _largest(_R.at(t)),
    }, initial)  # fmt: skip


def _gamma(reader: Reader, b1: Any, b2: Any) -> Expression:
    return reader.define((_GAMMA,), apply("root", 1 - b2**t) / (1 - b1**t))


def _largest(numerator: Expression) -> Expression:
    return apply("\\max", _D, numerator / apply("sum of magnitudes", _S.at(t)))


def _estimate(reader: Reader, values: dict[Symbol, Expression], initial: Any) -> Expression:
    letters = {_R: ("r",), _S: ("s",), _D: ("d",)}
    names, _ = reader.remember_all(letters, values, {_R: 0, _S: 0, _D: initial})
    return names[_D].at(t - 1)


def _correction(b1: Any, b2: Any, t: jax.Array) -> jax.Array:
    return sqrt(one_minus_power(b2, 1.0 * t)) / one_minus_power(b1, 1.0 * t)


def _rate(learning_rate: Any, corrections: Any, step: Any) -> Any:
    if corrections is None:
        return learning_rate
    b1, b2 = corrections
    return learning_rate * _correction(b1, b2, step)


def _inner(one: PyTree, other: PyTree) -> jax.Array:
    return inner_product(jax.tree.leaves(one), jax.tree.leaves(other))


def _larger(d: Any, numerator: Any, s: PyTree) -> Any:
    """The estimate, or the quotient with the sum of magnitudes of `s` if that is larger."""
    size = sum(total(jnp.sum(jnp.abs(x)), x) for x in jax.tree.leaves(s))
    return jnp.maximum(d, jnp.where(size == 0, d, numerator / jnp.where(size == 0, 1, size)))


def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, params)
