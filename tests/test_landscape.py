"""Slices of the loss, the directions that they are along, and the plane of a training path."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from compilations import counted_compilations

import gdtx
from gdtx import explore

mpl.use("Agg")

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(16, 3)), jnp.float32)
PARAMS = {
    "dense": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
    "bias": jnp.ones(4),
    "out": [jnp.asarray(RNG.normal(size=(4, 1)), jnp.float32), None],
}


@pytest.fixture
def ax():
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


@jax.jit
def loss(params):
    hidden = jnp.tanh(X @ params["dense"] + params["bias"][None])
    return jnp.mean((hidden @ params["out"][0]) ** 2)


def moved(direction, a, other=None, b=0.0):
    other = direction if other is None else other
    return jax.tree.map(
        lambda p, *d: np.asarray(p) + a * np.asarray(d[0]) + b * np.asarray(d[1]),
        PARAMS, direction, other,
    )  # fmt: skip


# Directions


@pytest.mark.parametrize(("shape", "axis", "others"), [
    ((5, 3), -1, (0,)), ((5, 3), 0, (1,)), ((3, 3, 2, 4), -1, (0, 1, 2)),
    ((4, 2, 3, 3), 0, (1, 2, 3)),
])  # fmt: skip
def test_every_filter_is_as_long_as_the_parameters(shape, axis, others):
    p = jnp.asarray(RNG.normal(size=shape) * np.geomspace(1, 1e-3, shape[-1]), jnp.float32)
    d = explore.random_direction({"p": p}, output_axis=axis)["p"]
    got, want = (np.sqrt(np.sum(np.square(np.asarray(x, np.float64)), others)) for x in (d, p))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert d.shape == shape


def test_direction_within_a_filter_is_normal():
    """Scaled filter by filter and not weight by weight: what is in a filter stays in proportion."""
    p = jnp.ones((200, 2)) * jnp.array([[1.0, 5.0]])
    d = np.asarray(explore.random_direction(p, 3))
    normal = np.random.default_rng(3).normal(size=(200, 2))
    want = normal / np.linalg.norm(normal, axis=0) * np.linalg.norm(np.asarray(p), axis=0)
    np.testing.assert_allclose(d, want, rtol=1e-5)


def test_vectors_and_filters_of_zeros_stay(x64):
    params = {"w": jnp.ones((3, 2)).at[:, 1].set(0), "b": jnp.ones(2), "s": jnp.ones(())}
    d = explore.random_direction(params)
    assert not d["b"].any()
    assert not d["s"].any()
    assert not d["w"][:, 1].any()
    assert d["w"][:, 0].all()
    d = explore.random_direction(params, vectors=True)
    np.testing.assert_allclose(np.linalg.norm(d["b"]), 2**0.5)
    np.testing.assert_allclose(np.abs(d["s"]), 1)


def test_directions_of_every_dtype():
    params = {"half": jnp.ones((3, 2), jnp.bfloat16), "z": jnp.ones((3, 2), jnp.complex64)}
    d = explore.random_direction(params)
    assert (d["half"].dtype, d["z"].dtype) == (jnp.float32, jnp.complex64)
    np.testing.assert_allclose(np.linalg.norm(d["z"], axis=0), 3**0.5, rtol=1e-6)
    assert d["z"].imag.all()
    line = explore.loss_landscape(
        lambda p: jnp.sum(jnp.abs(p["z"]) ** 2) + jnp.sum(p["half"] ** 2).astype(jnp.float32),
        params, 1, points=3,
    )  # fmt: skip
    assert line.losses.dtype == np.float32


def test_nothing_to_move():
    with pytest.raises(ValueError, match=r"random_direction: nothing would be moved: .*vectors"):
        explore.random_direction({"b": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"random_direction: params\['n'\] has dtype int32"):
        explore.random_direction({"n": jnp.ones(3, jnp.int32)})


# Landscapes


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_plane_is_direct_evaluation(batch_size):
    plane = explore.loss_landscape(
        loss, PARAMS, spans=((-1, 1), (0, 0.5)), points=5, batch_size=batch_size
    )
    assert [x.tolist() for x in plane.coordinates] == [
        [-1, -0.5, 0, 0.5, 1], [0, 0.125, 0.25, 0.375, 0.5],
    ]  # fmt: skip
    one, other = plane.directions
    assert not np.allclose(one["dense"], other["dense"])
    for (i, a), (j, b) in itertools.product(*map(enumerate, plane.coordinates)):
        np.testing.assert_allclose(plane.losses[i, j], loss(moved(one, a, other, b)), rtol=1e-5)
    np.testing.assert_allclose(plane.losses[2, 0], loss(PARAMS), rtol=1e-6)


def test_line_is_direct_evaluation():
    line = explore.loss_landscape(loss, PARAMS, 1, points=9, seed=5)
    (direction,) = line.directions
    assert line.losses.shape == (9,)
    for a, value in zip(*line.coordinates, line.losses, strict=True):
        np.testing.assert_allclose(value, loss(moved(direction, a)), rtol=1e-5)
    again = explore.loss_landscape(loss, PARAMS, 1, points=9, seed=5)
    np.testing.assert_array_equal(again.losses, line.losses)


def test_quadratic_along_eigenvectors_is_the_parabola(x64):
    matrix = RNG.normal(size=(6, 6))
    matrix = matrix @ matrix.T
    values, vectors = np.linalg.eigh(matrix)
    center = RNG.normal(size=6)

    def quadratic(w):
        return 0.5 * w @ matrix @ w

    for k in (0, 5):
        line = explore.loss_landscape(quadratic, center, [vectors[:, k]], points=11, spans=(-3, 3))
        a = line.coordinates[0]
        slope = values[k] * (vectors[:, k] @ center)
        want = 0.5 * center @ matrix @ center + a * slope + 0.5 * values[k] * a**2
        np.testing.assert_allclose(line.losses, want, rtol=1e-12)


def test_one_program():
    count = 0

    def counted(params):
        nonlocal count
        count += 1
        return loss(params)

    def warm():
        return explore.loss_landscape(loss, PARAMS, points=9, batch_size=8)

    warm()
    explore.loss_landscape(counted, PARAMS, points=9, batch_size=8)
    assert count <= 3  # its shape, and what is mapped
    directions = list(warm().directions)
    with counted_compilations() as compilations:
        explore.loss_landscape(loss, PARAMS, directions, points=9, batch_size=8)
    assert len(compilations) == 1


def test_parameters_stay_in_their_dtype():
    seen = []

    def half(p):
        seen.append(p.dtype)
        return jnp.sum(p.astype(jnp.float32) ** 2)

    explore.loss_landscape(half, jnp.ones((2, 2), jnp.bfloat16), points=3)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"directions": 3}, ValueError, "directions must be one or two, in a list, got a list of 3"),
    ({"directions": PARAMS}, ValueError, "directions must be one or two, in a list, got a dict of"),
    ({"directions": [{**PARAMS, "bias": None}]}, ValueError,
     r"directions\[0\] has no leaf directions\[0\]\['bias'\], which is in params"),
    ({"directions": [{**PARAMS, "bias": jnp.ones(3)}]}, ValueError,
     r"updates\['bias'\] has shape \(4,\), its direction has \(3,\)"),
    ({"loss": lambda p: p["bias"]}, ValueError,
     r"loss must return a scalar, got an array of shape \(4,\)"),
    ({"params": {"n": jnp.ones(2, int)}}, TypeError, r"params\['n'\] has dtype int32"),
])  # fmt: skip
def test_errors(arguments, error, message):
    given = {"loss": loss, "params": PARAMS, **arguments}
    with pytest.raises(error, match="loss_landscape: " + message):
        explore.loss_landscape(**given)


# Paths


def trained(steps=20):
    tx = gdtx.sgd(0.3, momentum=0.9)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (gdtx.apply_updates(params, updates), state), params

    return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=steps)[1]


def flat(tree, steps):
    return np.concatenate(
        [np.asarray(x, np.float64).reshape(steps, -1) for x in jax.tree.leaves(tree)], 1
    )


def test_principal_directions_are_those_of_an_eigendecomposition():
    path = trained()
    along = explore.path_directions(path, 3)
    positions = flat(path, 20)
    centered = positions - positions.mean(0)
    values, vectors = np.linalg.eigh(centered.T @ centered)
    values, vectors = values[::-1], vectors[:, ::-1]
    np.testing.assert_allclose(along.explained, (values / values.sum())[:3], rtol=1e-5)
    for k, direction in enumerate(along.directions):
        d = flat(jax.tree.map(lambda x: x[None], direction), 1)[0]
        np.testing.assert_allclose(abs(d @ vectors[:, k]), 1, rtol=1e-4)
        want = (positions - positions[-1]) @ d
        np.testing.assert_allclose(along.coordinates[:, k], want, atol=1e-5)
        assert along.coordinates[0, k] >= 0
    last = jax.tree.map(lambda x: x[-1], path)
    jax.tree.map(np.testing.assert_array_equal, along.center, last)
    assert jax.tree.structure(along.directions[0]) == jax.tree.structure(PARAMS)


def test_landscape_holds_the_path():
    """A path that lies in the plane has the losses of the landscape at its coordinates."""
    matrix = jnp.array([[3.0, 1.0], [1.0, 1.0]])

    def quadratic(w):
        return 0.5 * w["a"] @ matrix @ w["a"]

    positions = {"a": jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)}
    along = explore.path_directions(positions)
    np.testing.assert_allclose(along.explained.sum(), 1)
    for at, position in zip(along.coordinates, positions["a"], strict=True):
        spans = [(x, x + 1) for x in at]
        plane = explore.loss_landscape(
            quadratic, along.center, along.directions, spans=spans, points=2
        )
        np.testing.assert_allclose(plane.losses[0, 0], quadratic({"a": position}), rtol=1e-4)
    (low, high), (bottom, top) = along.spans
    x, y = along.coordinates.T
    assert low < x.min() < x.max() < high
    assert bottom < y.min() < y.max() < top


def test_path_of_complex_numbers_and_half_precision():
    z = RNG.normal(size=(5, 2, 2)) + 1j * RNG.normal(size=(5, 2, 2))
    path = {"z": jnp.asarray(z, jnp.complex64), "h": jnp.ones((5, 3), jnp.bfloat16)}
    along = explore.path_directions(path)
    assert [x.dtype for x in jax.tree.leaves(along.directions[0])] == [jnp.float32, jnp.complex64]
    one, other = (d["z"] for d in along.directions)
    np.testing.assert_allclose(jnp.sum(jnp.abs(one) ** 2), 1, rtol=1e-5)
    np.testing.assert_allclose(jnp.vdot(one, other).real, 0, atol=1e-6)


def test_path_that_does_not_move():
    along = explore.path_directions(jnp.ones((4, 3)))
    assert not along.explained.any()
    assert along.spans == ((-1.0, 1.0), (-1.0, 1.0))


@pytest.mark.parametrize(("path", "number", "message"), [
    ({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}, 2, r"got first axes \[\(2,\), \(3,\)\]"),
    (jnp.ones(()), 2, r"got first axes \[\(\)\]"),
    (jnp.ones((5, 1)), 2, "number must be from 1 to 1, for 5 positions and 1 parameters"),
    (jnp.ones((1, 5)), 2, "number must be from 1 to 1, for 1 positions and 5 parameters"),
    (jnp.ones((5, 5)), 0, "number must be from 1 to 5, .*got 0"),
])  # fmt: skip
def test_path_errors(path, number, message):
    with pytest.raises(ValueError, match=r"path_directions: .*" + message):
        explore.path_directions(path, number)


# Drawn


def test_plot_plane_with_path(ax):
    path = trained()
    along = explore.path_directions(path)
    plane = explore.loss_landscape(
        loss, along.center, along.directions, spans=along.spans, points=9
    )
    assert explore.plot_landscape(plane, along, ax=ax) is ax
    assert ax.get_xlabel() == f"direction 1 ({along.explained[0]:.0%} of the path)"
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), along.coordinates)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["start", "end"]
    ax.figure.draw_without_rendering()


def test_contours_of_a_parabola_are_evenly_spaced(ax):
    plane = explore.loss_landscape(
        lambda w: jnp.sum(w**2) + 3.0, jnp.zeros(2), [jnp.eye(2)[0], jnp.eye(2)[1]], points=11
    )
    explore.plot_landscape(plane, ax=ax, levels=7)
    (drawn,) = [c for c in ax.collections if hasattr(c, "levels")]
    radii = np.sqrt(drawn.levels - 3.0)
    np.testing.assert_allclose(np.diff(radii), radii[0], rtol=1e-4)
    # The first coordinate is across and the second is up.
    explore.plot_landscape(plane._replace(losses=plane.losses + 9 * np.arange(11)[:, None]), ax=ax)


def test_plot_line_and_losses_that_are_not_finite(ax):
    line = explore.loss_landscape(lambda w: jnp.log(w[0]), jnp.ones(1), [jnp.ones(1)], points=5,
                                  spans=(-2, 1))  # fmt: skip
    assert not np.isfinite(line.losses).all()
    explore.plot_landscape(line, np.array([[0.5], [0.0]]), ax=ax)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), line.coordinates[0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("direction 1", "loss")
    ax.figure.draw_without_rendering()
    with pytest.raises(ValueError, match=r"path must have shape \(positions, 1\), got \(4, 2\)"):
        explore.plot_landscape(line, np.ones((4, 2)), ax=ax)


def test_first_coordinate_is_across(ax):
    plane = explore.loss_landscape(
        lambda w: w[0], jnp.zeros(2), [jnp.eye(2)[0], jnp.eye(2)[1]], points=5
    )
    explore.plot_landscape(plane, ax=ax, levels=[0.25])
    (drawn,) = [c for c in ax.collections if hasattr(c, "levels")]
    vertices = np.concatenate([path.vertices for path in drawn.get_paths()])
    np.testing.assert_allclose(vertices[:, 0], 0.25, atol=1e-6)
