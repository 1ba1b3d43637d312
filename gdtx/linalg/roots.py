"""Inverse roots of symmetric positive semi-definite matrices, one or many at a time."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.numbers.numerics import cast, compute_dtype
from .decompositions import eigh
from .eigenvectors import orthogonal_iteration, rayleigh
from .newton import newton
from .products import adjoint, of_eigenvalues, product, resolution, safe

METHODS = ("eigh", "newton", "qr")


class Root(NamedTuple):
    """An inverse root, and how far from the matrix given the one is of which it is the root."""

    value: jax.Array
    error: jax.Array


def inverse_root(
    matrix: jax.Array,
    p: Any,
    eps: Any = 0.0,
    relative_eps: Any = 0.0,
    method: str = "eigh",
    basis: jax.Array | None = None,
    dtype: Any = None,
) -> Root:
    r"""$(A + d I)^{-1/p}$ of symmetric matrices $A$, with $d = \epsilon + \rho\,\lambda_{max}(A)$.

    `eps` is in the units of the spectrum, those of squared gradients: what it adds to an
    eigenvalue does not depend on the others. `relative_eps` is a share of the largest eigenvalue.
    Negative eigenvalues, which only rounding makes, count as 0, and those that are then still below
    $n u\,\lambda_{max}$, for $n$ rows and the unit roundoff $u$, count as that: what is smaller
    is not known. The root of the zero matrix, if nothing is added to it, is the zero matrix.

    **Reachable error.** The eigenvalues of a matrix are known to about $u\,\lambda_{max}$, where
    $u$ is $6 \cdot 10^{-8}$ in float32 and $10^{-16}$ in float64. The root is therefore off by up
    to about $n u (4 + \kappa / p)$ of its own norm, with
    $\kappa = (\lambda_{max} + d) / (\lambda_{min} + d)$, the condition number **after** damping.
    Where that is above 1 the directions of the smallest eigenvalues are noise: damp more, or ask
    for float64.

    Args:
        matrix: $A$, of shape (..., n, n).
        p: which root, any positive number, or an array of shape (...) of them; an integer for
            `"newton"`.
        eps: $\epsilon$.
        relative_eps: $\rho$.
        method: `"eigh"`, an eigendecomposition; `"newton"`, the coupled Newton iteration, all
            matrix products, for positive definite $A + dI$; `"qr"`, one step of orthogonal
            iteration from `basis`, good where the matrix has changed little since.
        basis: for `"qr"`, eigenvectors of a matrix near $A$, as columns.
        dtype: in which to compute; by default the matrix's, at least float32.

    Returns:
        The roots, in the matrix's dtype, and their errors of shape (...). For `"eigh"` and `"qr"`
        an error is the largest sum of magnitudes in a column of $V \Lambda V^\top - A$ over the
        largest eigenvalue; for `"newton"` the largest entry of $X^p (A + dI) - I$. It is infinite
        if the root is not finite.

    Raises:
        ValueError: for an unknown method, a root that it cannot take, or float64 where 64-bit
            types are not enabled.

    References:
        Guo & Higham 2006, A Schur-Newton method for the matrix p-th root and its inverse (the
        coupled iteration); Anil et al. 2020, Scalable Second Order Optimization for Deep Learning,
        arXiv:2002.09018.

    >>> import jax.numpy as jnp
    >>> from gdtx.linalg.roots import inverse_root
    >>> inverse_root(jnp.diag(jnp.array([16.0, 1.0])), 4).value
    Array([[0.5, 0. ],
           [0. , 1. ]], dtype=float32)
    """
    check_method(method, p)
    if method == "qr" and basis is None:
        raise ValueError("inverse_root: method 'qr' needs a basis, got None")
    working = checked_dtype("inverse_root", dtype)
    working = compute_dtype(matrix.dtype) if working is None else working
    if not matrix.shape[-1]:
        return Root(matrix, jnp.zeros(matrix.shape[:-2], working))
    kind = ("newton", round(p)) if method == "newton" else (method, 0)
    value, largest, error = _root(
        cast(matrix, working),
        jnp.broadcast_to(jnp.asarray(-1 / p, working)[..., None], (*matrix.shape[:-2], 1)),
        jnp.asarray(eps, working),
        jnp.asarray(relative_eps, working),
        None if basis is None else cast(basis, working),
        kind,
    )
    # No entry is larger than the largest eigenvalue, one number to look at.
    is_good = jnp.isfinite(largest.astype(matrix.dtype)) & ~jnp.isnan(error)
    return Root(value.astype(matrix.dtype), jnp.where(is_good, error, jnp.inf))


def check_method(method: str, p: Any) -> None:
    """Raise unless there is such a method and it can take this root."""
    if method not in METHODS:
        expected = ", ".join(map(repr, METHODS))
        raise ValueError(f"inverse_root: method must be one of {expected}, got {method!r}")
    if isinstance(p, int | float) and p <= 0:
        raise ValueError(f"inverse_root: p must be positive, got {p}")
    if method == "newton" and not (isinstance(p, int | float) and abs(p - round(p)) < 1e-9):
        raise ValueError(f"inverse_root: method 'newton' needs p to be an integer, got {p}")


def checked_dtype(name: str, dtype: Any) -> Any:
    """The dtype, if it can be had: JAX would otherwise give float32 for float64."""
    if dtype is None:
        return None
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"{name}: float64 was asked for where 64-bit types are not enabled; set jax_enable_x64"
        )
    return dtype


# The derivative is that of the root itself, whichever way it was found: the derivative of an
# eigendecomposition does not exist where eigenvalues coincide, that of its root does.
@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _root(
    matrix: Any, power: Any, eps: Any, relative_eps: Any, basis: Any, kind: tuple[str, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The root, its largest eigenvalue or a number as large as any of its entries, the error."""
    method, p = kind
    if method == "newton":
        value, error = newton(matrix, p, eps, relative_eps)
        return value, jnp.max(jnp.abs(value), axis=(-2, -1)), error
    if method == "qr":
        image = product(matrix, basis)
        vectors = orthogonal_iteration(image, jnp.max(rayleigh(basis, image), axis=-1))
        values = rayleigh(vectors, product(matrix, vectors))
        smallest, largest = (f(values, axis=-1, keepdims=True) for f in (jnp.min, jnp.max))
    else:
        # The transpose, which is the same matrix, is as LAPACK reads it.
        values, vectors = eigh(adjoint(matrix))
        # They are sorted, and reductions would be programs more to compile.
        smallest, largest = values[..., :1], values[..., -1:]
    size = safe(jnp.maximum(jnp.abs(smallest), jnp.abs(largest))[..., 0])
    sums = jnp.sum(jnp.abs(_outer(vectors, values) - matrix), axis=-2)
    error = jnp.max(sums, axis=-1) / size

    def powers(some: jax.Array) -> jax.Array:
        return _inverse_power(_damped(some, largest, eps, relative_eps), power)

    return _outer(vectors, powers(values)), powers(smallest)[..., 0], error


@_root.defjvp
def _root_jvp(kind: Any, primals: Any, tangents: Any) -> Any:
    matrix, power, eps, relative_eps, basis = primals
    d_matrix, d_power, d_eps, d_relative, _ = tangents
    out = _root(matrix, power, eps, relative_eps, basis, kind)
    raw, vectors = eigh(matrix)
    largest = raw[..., -1:]
    values = _damped(raw, largest, eps, relative_eps)
    roots = _inverse_power(values, power)
    # Daleckii and Krein: in the eigenbasis, each entry times the divided difference of the root.
    one, other = values[..., :, None], values[..., None, :]
    gap = one - other
    near = jnp.abs(gap) <= jnp.finfo(values.dtype).eps ** (1 / 3) * jnp.maximum(one, other)
    power = power[..., None]
    slope = power * _inverse_power(0.5 * (one + other), power - 1)
    divided = (roots[..., :, None] - roots[..., None, :]) / jnp.where(near, 1, gap)
    inner = product(adjoint(vectors), product(d_matrix, vectors))
    d_damping = d_eps + d_relative * jnp.maximum(largest, 0) + relative_eps * inner[..., -1, -1:]
    inner = inner + _diagonal(jnp.broadcast_to(d_damping, values.shape))
    tangent = jnp.where(near, slope, divided) * inner
    logs = jnp.log(jnp.where(values > 0, values, 1))
    tangent = tangent + _diagonal(d_power * logs * roots)
    tangent = product(product(vectors, tangent), adjoint(vectors))
    return out, (tangent, *map(jnp.zeros_like, out[1:]))


def _damped(values: jax.Array, largest: jax.Array, eps: Any, relative_eps: Any) -> jax.Array:
    largest = jnp.maximum(largest, 0)
    floor = resolution(values) * largest
    return jnp.maximum(jnp.maximum(values, 0) + (eps + relative_eps * largest), floor)


def _inverse_power(values: jax.Array, power: Any) -> jax.Array:
    return of_eigenvalues(lambda values: values**power, values)


def _outer(vectors: jax.Array, values: jax.Array) -> jax.Array:
    return product(vectors * values[..., None, :], adjoint(vectors))


def _diagonal(values: jax.Array) -> jax.Array:
    n = values.shape[-1]
    return values[..., None] * jnp.eye(n, dtype=values.dtype).reshape(
        *[1] * (values.ndim - 1), n, n
    )
