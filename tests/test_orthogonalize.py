"""Matrices made orthogonal: what each set of polynomials promises, and what all of them do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from compilations import counted_compilations

import gdtx
from gdtx.links.matrix.polynomials import COEFFICIENTS

KELLER = (3.4445, -4.7750, 2.0315)


def matrix(rng, shape, singular):
    """With these singular values."""
    u, v = (np.linalg.qr(rng.normal(size=(n, len(singular))))[0] for n in shape)
    return u * np.asarray(singular) @ v.T


def orthogonalized(x, *args, axes="io", **settings):
    tx = gdtx.orthogonalize(gdtx.Polar(*args, **settings), axes)
    return jax.device_get(tx.update(jax.tree.map(jnp.asarray, x), ())[0])


def composed(rows, x):
    """What the polynomials make of a singular value."""
    for row in rows:
        x = sum(c * x ** (2 * i + 1) for i, c in enumerate(row))
    return x


def minimax(low, high):
    """The odd quintic nearest to 1 on an interval, and its distance: Remez's exchange.

    At four points, the ends among them, the error of the best is largest, with signs that change.
    """
    points = np.array([low, (3 * low + high) / 4, (low + 3 * high) / 4, high])
    error = np.inf
    for _ in range(100):
        powers = np.stack([points, points**3, points**5, [1, -1, 1, -1]], axis=1)
        *row, new = np.linalg.solve(powers, np.ones(4))
        if abs(new - error) < 1e-15:
            break
        error = new
        squares = np.roots([5 * row[2], 3 * row[1], row[0]]).real
        points = np.array([low, *np.sqrt(np.sort(squares)), high])
    return np.array(row)


def test_polar_express_is_the_greedy_minimax():
    """Amsel et al. 2025, theorem 3.1, with the numbers that they chose for Muon.

    Singular values are in [1e-3, 1] at first; each step is the best for what the last has left, on
    an interval cut below at 0.024 of its upper end (their cushion, a digit more in their program),
    scaled to be centred on 1 all the same; the argument of each is divided by 1.01 for rounding.
    """
    low, high, cushion, safety = 1e-3, 1.0, 0.02407327424182761, 1.01
    table = COEFFICIENTS["polar_express"]
    for given in table[:-1]:
        row = minimax(max(low, cushion * high), high)
        row *= 2 / (composed([row], low) + composed([row], high))
        np.testing.assert_allclose(given, row / safety ** np.array([1, 3, 5]), rtol=1e-9)
        low = composed([row], low)
        high = 2 - low
    # Where the interval has shrunk to 1, the best is the one that is flattest there.
    np.testing.assert_allclose(minimax(0.999, 1.001), table[-1], rtol=1e-5)
    assert table[-1] == COEFFICIENTS["convergent"][0]


# Set, steps, smallest singular value over the Frobenius norm, range of what comes out: as the
# docstring has it.
SPECTRA = [
    ("keller", 5, 2e-3, 0.68, 1.21),
    ("polar_express", 5, 1e-3, 0.84, 1.13),
    ("polar_express", 6, 1e-3, 1 - 6e-3, 1 + 6e-3),
    ("polar_express", 7, 1e-3, 1 - 1e-5, 1 + 1e-5),
    ("polar_express", 10, 1e-3, 1 - 1e-6, 1 + 1e-6),
    ("convergent", 15, 1e-3, 1 - 1e-6, 1 + 1e-6),
    ("cubic", 22, 1e-3, 1 - 1e-6, 1 + 1e-6),
    ("exact", 0, 1e-12, 1 - 1e-12, 1 + 1e-12),
]


@pytest.mark.parametrize(("name", "steps", "smallest", "low", "high"), SPECTRA)
def test_guaranteed_spectrum(name, steps, smallest, low, high, x64):
    """On a fine grid of one number, and on matrices from well to as badly conditioned as stated."""
    if name != "exact":
        got = composed(rows_of(name, steps), np.geomspace(smallest, 1, 100_001))
        assert got.min() >= low
        assert got.max() <= high
        # The bound is that of the set, not a generous one, where it is not rounding's.
        assert steps > 7 or got.min() < low + 0.01
    rng = np.random.default_rng(0)
    for condition in (1.0, 10.0, 0.4 / smallest):
        singular = 1 / rng.uniform(1, condition, 8)
        singular[:2] = 1, 1 / condition
        assert singular.min() / np.linalg.norm(singular) >= smallest
        got = np.linalg.svd(orthogonalized(matrix(rng, (8, 11), singular), name, steps))[1]
        assert got.min() >= low
        assert got.max() <= high


SHAPES = [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1)]


def rows_of(name, steps):
    """The last polynomial of a set serves all later steps."""
    return [COEFFICIENTS[name][min(k, len(COEFFICIENTS[name]) - 1)] for k in range(steps)]


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_singular_vectors_stay_and_values_are_the_polynomial(name, x64):
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=shape) for shape in SHAPES]
    for x, got in zip(matrices, orthogonalized(matrices, name, 6), strict=True):
        u, s, v = np.linalg.svd(x, full_matrices=False)
        want = u * composed(rows_of(name, 6), s / np.linalg.norm(s)) @ v
        np.testing.assert_allclose(got, want, atol=1e-13)


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e10])
def test_exact_is_the_polar_factor(condition, x64):
    rng = np.random.default_rng(2)
    matrices = [matrix(rng, shape, np.geomspace(1, 1 / condition, min(shape))) for shape in SHAPES]
    for x, got in zip(matrices, orthogonalized(matrices, "exact"), strict=True):
        u, _, v = np.linalg.svd(x, full_matrices=False)
        # The polar factor turns by the rounding over the smallest singular value.
        np.testing.assert_allclose(got, u @ v, atol=1e-15 * condition + 1e-14)


def test_directions_without_a_singular_value_have_none(x64):
    """But for rounding, which the decomposition knows and no polynomial can."""
    rng = np.random.default_rng(3)
    x = matrix(rng, (5, 6), [3.0, 0.1])
    u, _, v = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(orthogonalized(x, "exact"), u[:, :2] @ v[:2], atol=1e-13)
    want = u[:, :2] * composed(rows_of("keller", 5), np.array([3.0, 0.1]) / np.hypot(3.0, 0.1))
    np.testing.assert_allclose(orthogonalized(x), want @ v[:2], atol=1e-12)


@pytest.mark.parametrize("name", [*COEFFICIENTS, "exact"])
def test_no_magnitude_overflows_or_vanishes(name):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    want = orthogonalized(x, name)
    for magnitude in (2.0**125, 2.0**-110):
        got = orthogonalized(x * np.float32(magnitude), name)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert (orthogonalized(np.zeros_like(x), name) == 0).all()


def test_other_coefficients(x64):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(orthogonalized(x, KELLER), orthogonalized(x, "keller"))
    as_rows = orthogonalized(x, COEFFICIENTS["polar_express"], 8)
    np.testing.assert_array_equal(as_rows, orthogonalized(x, "polar_express", 8))
    # The last row serves all later steps, and rows may have any number of coefficients.
    u, s, v = np.linalg.svd(x, full_matrices=False)
    rows = [(2.0,), (1.0, -0.2, 0.1, 0.05), (1.5, -0.5), (1.5, -0.5)]
    want = u * composed(rows, s / np.linalg.norm(s)) @ v
    np.testing.assert_allclose(orthogonalized(x, rows[:3], 4), want, atol=1e-14)


def test_arrays_as_coefficients_change_without_compiling():
    x, tx = jnp.ones((2, 3)), gdtx.orthogonalize(gdtx.Polar(tuple(map(jnp.array, KELLER))))
    first = tx.update(x, ())[0]
    with counted_compilations() as compilations:
        cubic = tuple(map(jnp.array, (1.5, -0.5, 0.0)))
        other = tx.replace(**{"polar.coefficients": cubic})
        assert not np.allclose(other.update(x, ())[0], first)
    assert compilations == []
    # They make nothing of a narrower dtype wider.
    assert tx.replace(**{"polar.dtype": "bfloat16"}).update(x, ())[0].dtype == jnp.float32


AXES = {
    "io": (3, 4), "oi": (3, 4), "bio": (2, 3, 4), "iob": (3, 4, 2), "ibo": (3, 2, 4),
    "iio": (2, 3, 4), "ioo": (3, 2, 4), "iiio": (3, 2, 2, 4), "bbio": (2, 2, 3, 4),
    "obib": (4, 2, 3, 2),
}  # fmt: skip


FACTORS = {
    "keller": lambda n_in, n_out: max(1, n_out / n_in) ** 0.5,
    "moonshot": lambda n_in, n_out: 0.2 * max(n_in, n_out) ** 0.5,
    None: lambda n_in, n_out: 1.0,
}


def by_indexing(x, axes, f):
    """`f` of each matrix of an array, its rows and columns counted off in order."""
    out = np.empty_like(x)

    def places(letter, start):
        sizes = [n if a == letter else 1 for n, a in zip(x.shape, axes, strict=True)]
        return [tuple(map(sum, zip(start, at, strict=True))) for at in np.ndindex(*sizes)]

    for start in places("b", (0,) * x.ndim):
        grid = [places("o", row) for row in places("i", start)]
        new = f(np.array([[x[at] for at in row] for row in grid]))
        for row, values in zip(grid, new, strict=True):
            for at, value in zip(row, values, strict=True):
                out[at] = value
    return out


def test_axes(x64):
    rng = np.random.default_rng(6)
    arrays = {axes: rng.normal(size=shape) for axes, shape in AXES.items()}
    axes = {axes: axes for axes in AXES}
    got = orthogonalized(arrays, axes=axes)
    for name, x in arrays.items():
        want = by_indexing(x, name, lambda m: oracles.orthogonal(m, KELLER, 5))
        np.testing.assert_allclose(got[name], want, atol=1e-13, err_msg=name)
    for factor in [*FACTORS, lambda n_in, n_out: n_in / n_out]:
        tx, scale = gdtx.scale_by_shape(factor, axes), FACTORS.get(factor, factor)
        scaled, _ = tx.update(jax.tree.map(jnp.asarray, arrays), tx.init(arrays))
        for name, x in arrays.items():
            want = by_indexing(x, name, lambda m: scale(*m.shape) * m)  # noqa: B023
            np.testing.assert_allclose(scaled[name], want, rtol=1e-14, err_msg=name)


def test_axes_by_tree_function_prefix_and_patterns():
    x = jnp.asarray(np.random.default_rng(7).normal(size=(2, 3, 4)), jnp.float32)
    tree = {"a": {"w": x, "v": x}, "b": x[0], "c": x[0, 0], "n": None}
    given = {"a": "bio", "b": True, "c": False, "n": None}
    want = gdtx.orthogonalize(axes=given).update(tree, ())[0]
    np.testing.assert_array_equal(want["c"], tree["c"])
    np.testing.assert_array_equal(want["b"], gdtx.orthogonalize().update(x[0], ())[0])

    def by_shape(params):
        return jax.tree.map(lambda p: {3: "bio", 2: "io", 1: False}[p.ndim], params)

    patterns = [("a/*", "bio"), ("b", True)]
    for same in (by_shape, lambda path, p: {3: "bio", 2: "io", 1: False}[p.ndim], patterns):
        chex.assert_trees_all_equal(gdtx.orthogonalize(axes=same).update(tree, ())[0], want)
    with pytest.raises(ValueError, match=r"orthogonalize: pattern 'd/\*\*' matches no path"):
        gdtx.orthogonalize(axes=[*patterns, ("d/**", "io")]).init(tree)
    with pytest.raises(ValueError, match="orthogonalize: axes of pattern 'b' is 'rc'"):
        gdtx.orthogonalize(axes=[("b", "rc")]).init(tree)
    # Where the parameters are a list, a list of axes is a tree.
    listed = gdtx.orthogonalize(axes=["io", False]).update([x[0], x[1]], ())[0]
    chex.assert_trees_all_equal(listed, [want["b"], x[1]])


def test_parameters_named_like_axes():
    x = {"io": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    got = gdtx.orthogonalize(gdtx.Polar("exact"), axes=["io"]).update(x, ())[0]
    np.testing.assert_allclose(got["io"], jnp.full((2, 2), 0.5), atol=1e-6)
    np.testing.assert_array_equal(got["b"], x["b"])


def test_complex_matrices_become_unitary(x64):
    rng = np.random.default_rng(8)
    x = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
    u, _, v = np.linalg.svd(x, full_matrices=False)
    for name, steps in (("exact", 0), ("polar_express", 9)):
        np.testing.assert_allclose(orthogonalized(x, name, steps), u @ v, atol=1e-12)
    np.testing.assert_allclose(orthogonalized(x), oracles.orthogonal(x, KELLER, 5), atol=1e-13)
    # On matrices that are real it is the rule for real ones.
    np.testing.assert_allclose(orthogonalized(x.real + 0j), orthogonalized(x.real), atol=1e-14)


@pytest.mark.parametrize("name", ["keller", "polar_express"])
def test_narrow_dtypes(name):
    rng = np.random.default_rng(9)
    x = matrix(rng, (16, 24), np.geomspace(1, 1e-2, 16)).astype(jnp.bfloat16)
    wide = orthogonalized(x, name)
    assert wide.dtype == jnp.bfloat16
    exact = orthogonalized(x.astype(np.float32), name)
    np.testing.assert_allclose(wide.astype(np.float32), exact, rtol=2**-8, atol=1e-5)
    narrow = orthogonalized(x.astype(np.float32), name, dtype="bfloat16")
    assert narrow.dtype == np.float32
    # 8 bits in each of 15 products; without safety factor values would grow from 1.13 on.
    got = np.linalg.svd(narrow)[1]
    assert got.min() > 0.6
    assert got.max() < 1.3


@pytest.mark.first(1)
@pytest.mark.parametrize("coefficients", ["keller", "exact"])
def test_derivatives(coefficients, x64):
    """By finite differences, of matrices with more rows, more columns and as many; 0 at 0."""
    rng = np.random.default_rng(13)
    tx = gdtx.orthogonalize(gdtx.Polar(coefficients))
    f = jax.jit(lambda x: tx.update(x, ())[0])

    def draw():
        real = [rng.normal(size=shape) for shape in [(3, 3), (2, 4), (4, 2)]]
        return jax.tree.map(jnp.asarray, [*real, rng.normal(size=(2, 3)) + 1j * real[1][:, :3]])

    x, dx = draw(), draw()
    slope = jax.jit(lambda x, dx: jax.jvp(f, (x,), (dx,))[1])
    got = slope(x, dx)
    ahead, behind = (
        f(jax.tree.map(lambda x, dx: x + h * dx, x, dx))  # noqa: B023
        for h in (1e-6, -1e-6)
    )
    want = jax.tree.map(lambda a, b: (a - b) / 2e-6, ahead, behind)
    chex.assert_trees_all_close(got, want, rtol=0, atol=1e-7)
    chex.assert_tree_all_finite(slope(jax.tree.map(np.zeros_like, x), dx))


def test_nan_stays_in_its_matrix():
    updates = {"a": jnp.ones((2, 3)), "b": jnp.full((2, 3), jnp.nan), "c": jnp.eye(2, 3)}
    got = gdtx.orthogonalize().update(updates, ())[0]
    assert jnp.isnan(got["b"]).all()
    chex.assert_tree_all_finite((got["a"], got["c"]))


TEXTBOOK = {"keller": 5, "polar_express": 8, "convergent": 15, "cubic": 22}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TEXTBOOK)
def test_two_steps_at_a_time_are_nearly_as_exact_as_one_after_the_other(name, dtype):
    """In XX* small singular values are lost, of which there are many here."""
    rng = np.random.default_rng(13)
    shape = (32, 96)
    spectra = {f"{n} decades": np.logspace(0, -n, 32) for n in (0, 1, 1.5, 2, 3, 5)}
    spectra |= {"few": [1.0] * 3, "normal": rng.normal(size=32)}
    steps = TEXTBOOK[name]
    rows = [*COEFFICIENTS[name][:steps]]
    rows = [(*row, 0.0)[:3] for row in rows + rows[-1:] * (steps - len(rows))]

    def textbook(x):
        for a, b, c in rows:
            gram = product(x, x.T)
            factor = b * gram + c * product(gram.astype(x.dtype), gram.astype(x.dtype))
            x = (a * x + product(factor.astype(x.dtype), x)).astype(x.dtype)
        return x

    def product(one, other):
        return jnp.matmul(one, other, precision="highest", preferred_element_type=jnp.float32)

    for label, spectrum in spectra.items():
        x = np.float32(matrix(rng, shape, spectrum))
        want = oracles.orthogonal(x.astype(np.float64), rows, steps)
        one_by_one = jax.jit(textbook)(jnp.asarray(x / np.linalg.norm(x), dtype))
        got = orthogonalized(x, name, steps, dtype=dtype)
        ours, theirs = (
            np.linalg.norm(np.asarray(each, np.float64) - want) for each in (got, one_by_one)
        )
        assert ours <= {"float32": 3, "bfloat16": 1.5}[dtype] * theirs, (label, ours, theirs)


@pytest.mark.parametrize("height", [32, 64, 80])
def test_operations_are_fewer_where_matrices_are_long(height):
    """Of four steps with n columns to m rows 20 m^3 + 8 m^2 n, where one after the other have
    8 m^3 + 16 m^2 n: the first are fewer from n = 1.5 m on."""
    length = 128

    def operations(shape):
        tx = gdtx.orthogonalize(gdtx.Polar(steps=4))
        update = jax.jit(lambda x: tx.update(x, ())[0])
        cost = update.lower(jnp.ones(shape)).compile().cost_analysis()
        return cost["flops"]

    textbook = 8 * height**3 + 16 * height**2 * length
    together = 20 * height**3 + 8 * height**2 * length
    assert (together < textbook) == (2 * length > 3 * height)
    # It is a loop, of which the compiler counts one turn. Beside products there are sums.
    turns, want = (2, together) if together < textbook else (4, textbook)
    for shape in ((height, length), (length, height)):
        np.testing.assert_allclose(turns * operations(shape), want, rtol=0.1)
