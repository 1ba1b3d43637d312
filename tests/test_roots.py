"""Inverse roots against mpmath's, as far as their precision allows, and their derivatives."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads

import gdtx
from gdtx.linalg.roots import inverse_root

POWERS = (1, 2, 4, 6)
# Largest over smallest eigenvalue, with what is added to all as a share of the largest.
SPECTRA = {"1": (0, 0), "1e2": (2, 0), "1e4": (4, 0), "1e6": (6, 0), "1e8, damped": (8, 1e-5),
           "1e10, damped": (10, 1e-5), "singular, damped": (None, 1e-4)}  # fmt: skip
N = 6


def sample(decades, dtype, n=N):
    """A matrix with eigenvalues over so many decades; of rank 2 for None."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.logspace(0, -(decades or 0), n)
    if decades is None:
        values[2:] = 0
    matrix = (basis * values) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype)


root = functools.partial(jax.jit, static_argnames=("p", "method", "dtype"))(inverse_root)
root_of_each = functools.partial(jax.jit, static_argnames="method")(inverse_root)


@functools.cache
def reference_of(name, p, dtype):
    decades, damping = SPECTRA[name]
    return reference(sample(decades, dtype), p, damping)


def reference(matrix, p, damping):
    """(A + d I)^(-1/p) with 40 digits; the matrix is taken for what its numbers say."""
    with mpmath.workdps(40):
        exact = mpmath.matrix(matrix.astype(np.float64).tolist())
        values, vectors = mpmath.eigsy(exact)
        # What rounding made negative counts as 0.
        roots = mpmath.diag([(max(v, 0) + mpmath.mpf(damping)) ** (-mpmath.mpf(1) / p)
                             for v in values])  # fmt: skip
        return np.array((vectors * roots * vectors.T).tolist(), dtype=float)


def bound(matrix, p, damping, dtype):
    """What the docstring states, with twice its constant."""
    values = np.linalg.eigvalsh(matrix.astype(float))
    condition = (values[-1] + damping) / (max(values[0], 0) + damping)
    return 2 * len(matrix) * np.finfo(dtype).eps / 2 * (4 + condition / p)


@pytest.mark.first(2)
@pytest.mark.parametrize("method", ["eigh", "newton", "qr"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_roots_are_as_near_as_stated(dtype, method, x64):
    cases = [(name, p) for p in POWERS for name in SPECTRA]
    matrices = np.stack([sample(SPECTRA[name][0], dtype) for name, _ in cases])
    damping = np.array([SPECTRA[name][1] for name, _ in cases])
    powers = np.array([float(p) for _, p in cases])
    if method == "newton":
        each = len(SPECTRA)
        found = [
            root(jnp.asarray(part), p, damping[:each].reshape(-1, 1, 1), method=method)
            for p, part in zip(POWERS, np.split(matrices, len(POWERS)), strict=True)
        ]
        values, errors = (np.concatenate(column) for column in zip(*found, strict=True))
    else:
        basis = np.linalg.eigh(matrices)[1][..., ::-1]
        values, errors = root_of_each(
            jnp.asarray(matrices), powers, damping[:, None], method=method, basis=basis
        )
    assert values.dtype == dtype
    for i, (name, p) in enumerate(cases):
        want = reference_of(name, p, dtype)
        off = np.linalg.norm(values[i] - want, 2) / np.linalg.norm(want, 2)
        assert off <= bound(matrices[i], p, damping[i], dtype), (name, p)
        assert errors[i] < 1e-3, (name, p)


def test_float32_beyond_its_reach_is_right_in_float64(x64):
    matrix = sample(10, "float64")
    for p in POWERS:
        want = reference(matrix, p, 0)
        value = root(matrix, p).value
        np.testing.assert_allclose(value, want, rtol=0, atol=1e-4 * np.abs(want).max())
        single = root(matrix.astype(np.float32), p, dtype="float64").value
        assert single.dtype == jnp.float32
        assert jnp.isfinite(single).all()


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_small_and_singular(method):
    root = jax.jit(lambda a, eps: inverse_root(a, 4, eps, method=method))
    matrices = np.stack([np.zeros((3, 3)), np.eye(3) * 1e-30, np.diag([16.0, 16.0, 1.0])])
    values, errors = root(jnp.asarray(matrices, jnp.float32), 0.0)
    assert not np.any(values[0])
    assert np.all(errors < 1e-5)
    np.testing.assert_allclose(values[1], 1e30**0.25 * np.eye(3), rtol=1e-4, atol=1e3)
    np.testing.assert_allclose(values[2], np.diag([0.5, 0.5, 1]), rtol=1e-4, atol=1e-5)
    damped, _ = root(jnp.zeros((3, 3, 3)), 0.25)
    np.testing.assert_allclose(damped[0], 0.25**-0.25 * np.eye(3), rtol=1e-5, atol=1e-6)
    one = jax.jit(lambda a: inverse_root(a, 4, method=method).value)(jnp.full((1, 1), 16.0))
    np.testing.assert_allclose(one, [[0.5]], rtol=1e-5)


def test_relative_damping_is_a_share_of_the_largest_eigenvalue(x64):
    matrix = sample(4, "float64")
    for scale in (1.0, 1e6):
        want = reference(scale * matrix, 4, scale * 0.01)
        got = root(scale * matrix, 4, relative_eps=0.01).value
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12 * np.abs(want).max())
        newton = root(scale * matrix, 4, relative_eps=0.01, method="newton").value
        np.testing.assert_allclose(newton, want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_each_matrix_may_have_a_root_of_its_own():
    matrices = np.stack([np.diag([16.0, 4.0])] * 2).astype(np.float32)
    value = root_of_each(matrices, np.float32([2.0, 4.0])).value
    np.testing.assert_allclose(value[0], np.diag([0.25, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(value[1], np.diag([0.5, 0.5**0.5]), rtol=1e-6)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_what_is_not_finite_has_an_infinite_error(method):
    matrices = np.stack([np.eye(3), np.full((3, 3), np.nan), np.full((3, 3), np.inf)])
    np.testing.assert_array_equal(
        np.isinf(root(matrices, 2, method=method).error), [False, True, True]
    )


def test_newton_reports_that_it_did_not_converge():
    assert root(np.diag(np.float32([1.0, -0.5])), 4, method="newton").error > 0.1


def test_a_root_too_large_for_its_dtype_has_an_infinite_error():
    matrix = np.float32(1e-20) * np.eye(2, dtype=np.float32)
    assert np.isinf(root(matrix, 0.5).error)  # 1e40
    assert root(matrix, 1).error < 1e-6


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_derivatives_where_eigenvalues_coincide_and_where_not(method, x64):
    @jax.jit
    def root(matrix, eps, relative):
        symmetric = (matrix + matrix.T) / 2
        return inverse_root(symmetric, 4, eps, relative, method=method).value

    generic, twofold = jnp.asarray(sample(1, "float64", 4)), 2 * jnp.eye(4)
    # Where the largest eigenvalue is not one alone, it has no derivative; of Newton's it is near.
    for matrix, relative in [(generic, 0.1 if method == "eigh" else 0.0), (twofold, 0.0)]:
        check_grads(root, (matrix, 0.3, relative), 1, modes=("fwd",))


def test_derivatives_by_the_power_and_at_zero(x64):
    check_grads(lambda p: root_of_each(2 * np.eye(2), p).value, (3.0,), 1, modes=("fwd",))
    slope = jax.jit(lambda a, da: jax.jvp(lambda a: inverse_root(a, 4).value, (a,), (da,))[1])
    assert np.isfinite(slope(np.zeros((2, 2)), np.eye(2))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: inverse_root(a, 4, method="svd"), "method must be one of 'eigh', 'newton'"),
        (lambda a: inverse_root(a, -1), "p must be positive, got -1"),
        (lambda a: inverse_root(a, 2.5, method="newton"), "needs p to be an integer, got 2.5"),
        (lambda a: inverse_root(a, 2, method="qr"), "needs a basis"),
        (lambda a: inverse_root(a, 2, dtype="float64"), "float64 was asked for where 64-bit"),
        (
            lambda a: gdtx.shampoo(0.1, roots=gdtx.Roots(dtype="float64")),
            "float64 was asked for where 64-bit",
        ),
        (
            lambda a: gdtx.soap(0.1, bases=gdtx.Bases(dtype="float64")),
            "float64 was asked for where 64-bit",
        ),
        (lambda a: gdtx.shampoo(0.1, exponent=0.25), "exponent must be negative, got 0.25"),
        (lambda a: gdtx.Roots(method="qr"), "method must be 'eigh' or 'newton', got 'qr'"),
        (lambda a: gdtx.Bases(method="newton"), "method must be 'qr' or 'eigh', got 'newton'"),
        (lambda a: gdtx.Roots(every=0), "Roots: every must be a positive integer"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.eye(2))
