"""Transformations of images of matrices: their laws, what turns, and what a body may read."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_blocks import primitives
from test_latex import evaluated, sample
from test_sharding import described, on_mesh
from test_sharding import draw as draw_sharded

import gdtx
from gdtx.linalg.subspaces import leading

PARAMS = {"w": (5, 4), "k": (3, 4), "b": (3,), "s": (), "e": (0, 2)}
STEPS = 7


def draw(seed, shapes=PARAMS):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def path(tx, shapes=PARAMS, scale=1.0):
    """The updates of all steps and the last state."""
    params = draw(0, shapes)
    gradients = jax.tree.map(lambda *x: jnp.stack(x) * scale, *(
        draw(1 + t, shapes) for t in range(STEPS)
    ))  # fmt: skip

    def step(state, g):
        updates, state = tx.update(g, state, params)
        return state, updates

    return jax.jit(lambda: jax.lax.scan(step, tx.init(params), gradients)[::-1])()


def matrices(state):
    return state.inner["matrices"]


def identity_basis(x, rank):
    return jnp.eye(x.shape[-2], rank)


def orthogonal_basis(x, rank):
    size = x.shape[-2]
    return jnp.asarray(np.linalg.qr(np.random.default_rng(size).normal(size=(size, size)))[0])


def turning_basis(x, rank):
    return jnp.linalg.qr(x[..., :, : x.shape[-2]])[0]


close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-13)


def test_at_full_rank_with_the_identity_it_is_inner(x64):
    """One that sees parameters too."""
    inner = gdtx.chain(gdtx.scale_by_adam(), gdtx.scale_by_trust_ratio())
    close(path(gdtx.projected(inner, 9, 2, basis=identity_basis))[0], path(inner)[0])


@pytest.mark.first(1)
@pytest.mark.parametrize("basis", ["svd", orthogonal_basis], ids=["svd", "any"])
def test_at_full_rank_with_a_fixed_basis_it_is_inner_in_another(x64, basis):
    """What turns with its input is the same there."""
    momentum = gdtx.sgd(0.1, momentum=0.9, nesterov=True)
    close(path(gdtx.projected(momentum, 4, 100, basis=basis))[0], path(momentum)[0])


def test_moments_that_rotate_are_those_of_a_basis_that_never_turned(x64):
    momentum = gdtx.sgd(0.1, momentum=0.9)
    rotated = gdtx.projected(momentum, 4, 2, basis=turning_basis, moments="rotate")
    close(path(rotated)[0], path(momentum)[0])
    kept = path(rotated.replace(moments="keep"))[0]
    assert np.abs(kept["w"] - path(momentum)[0]["w"])[2:].max() > 0.01


def signs_by_turns(x, rank):
    """The identity, permuted and with other signs by the sign of a number of the gradient."""
    n = x.shape[-2]
    other = jnp.roll(jnp.eye(n), 1, 0) * jnp.where(jnp.arange(n) % 2 == 0, 1, -1)[None]
    return jnp.where(x[0, 0] > 0, jnp.eye(n), other)


def test_magnitudes_rotate_without_signs(x64):
    """Of a permutation with signs nothing is lost: Adam does not notice it."""
    adam, shapes = gdtx.scale_by_adam(), {"w": (4, 4), "k": (3, 5)}
    rotated = gdtx.projected(adam, 5, 1, basis=signs_by_turns, moments="rotate")
    close(path(rotated, shapes)[0], path(adam, shapes)[0])


def test_moments_that_are_reset_are_those_of_a_new_start(x64):
    """Counts too, of the matrices; what other arrays keep stays."""
    tx = gdtx.projected(gdtx.scale_by_adam(), 4, 3, basis=identity_basis, moments="reset")
    updates, plain = path(tx)[0], path(gdtx.scale_by_adam())[0]
    close({name: u[:3] for name, u in updates.items()}, {name: u[:3] for name, u in plain.items()})
    close(updates["b"], plain["b"])
    for start in (0, 3, 6):
        np.testing.assert_allclose(np.abs(updates["w"][start]), 1, rtol=1e-4)


def test_the_basis_turns_every_so_many_steps_only():
    tx, params = gdtx.projected(gdtx.identity(), 2, 3), draw(0)
    state, bases = tx.init(params), []
    for t in range(7):
        _, state = tx.update(draw(1 + t), state, params)
        bases.append(matrices(state).basis["w"])
    turned = [not np.array_equal(one, other) for one, other in itertools.pairwise(bases)]
    assert turned == [False, False, True, False, False, True]
    g = np.asarray(draw(7)["w"])
    vectors = np.linalg.svd(g)[2][:2].T
    np.testing.assert_allclose(np.abs(bases[-1].T @ vectors), np.eye(2), atol=1e-5)


def test_steps_between_turns_decompose_nothing():
    tx, params = gdtx.projected(gdtx.scale_by_adam(), 2, 3), draw(0)
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    assert {"svd", "cond"} <= set(primitives(jaxpr.jaxpr, outside=False))
    assert "svd" not in set(primitives(jaxpr.jaxpr, outside=True))


def test_what_a_body_reads(x64):
    def run(*names, shapes):
        body = gdtx.value_of(names[0])
        return path(gdtx.projected(gdtx.square(), 2, 100, body=body), shapes)

    shapes = {"w": (5, 4)}
    inside, state = run("inside", shapes=shapes)
    read = {name: run(name, shapes=shapes)[0]["w"] for name in ("outside", "gain", "gains")}
    p = np.asarray(matrices(state).basis["w"])
    for t in range(STEPS):
        g = np.asarray(draw(1 + t, shapes)["w"])
        image = g @ p
        new = image**2
        norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (new, image)]
        close(inside["w"][t], new @ p.T)
        close(read["outside"][t], g - image @ p.T)
        close(read["gain"][t], np.full((5, 4), np.linalg.norm(new) / np.linalg.norm(image)))
        close(read["gains"][t], np.broadcast_to(norms[0] / norms[1], (5, 4)))


def test_inner_sees_images_of_the_parameters(x64):
    shapes = {"w": (5, 4)}
    updates, state = path(gdtx.projected(gdtx.add_decayed_weights(0.5), 2, 100), shapes)
    p = matrices(state).basis["w"]
    whole = draw(1, shapes)["w"] + 0.5 * draw(0, shapes)["w"]
    close(updates["w"][0], whole @ p @ p.T)


def test_a_gain_of_nothing_is_0_and_its_derivative_finite():
    tx = gdtx.projected(gdtx.add(1.0), 2, 9, body=gdtx.value_of("gains"))
    zero = {"w": jnp.zeros((3, 4))}

    def total(g):
        return jnp.sum(tx.update(g, tx.init(g))[0]["w"])

    value, slope = jax.jit(jax.value_and_grad(total))(zero)
    assert value == 0
    chex.assert_tree_all_finite(slope)


def test_of_a_vector_the_largest_entry_is_positive(x64):
    for seed in range(4):
        x = draw(seed, {"x": (3, 6, 4)})["x"]
        vectors = np.asarray(leading(x, 3))
        np.testing.assert_allclose(
            np.abs(np.linalg.svd(x)[0][..., :3]), np.abs(vectors), atol=1e-12
        )
        assert (vectors.max(-2) >= -vectors.min(-2)).all()


def test_random_bases_are_drawn_with_keys_of_step_and_matrix(x64):
    shapes = {"k": (3, 4), "v": (3,), "w": (5, 4)}
    state = path(gdtx.projected(gdtx.identity(), 2, 3, basis="gaussian", seed=5), shapes)[1]
    now = jax.random.fold_in(jax.random.key(5), 7)
    for i, (name, rows) in enumerate([("k", 3), ("w", 4)]):
        drawn = jax.random.normal(jax.random.fold_in(now, i), (rows, 2), "float64")
        close(matrices(state).basis[name], drawn / 2**0.5)


@pytest.mark.slow
def test_sides_and_axes(x64):
    """A side by its letter; a stack of layers is the layers, in any order of axes."""
    shapes = {"w": (5, 4)}
    tx = gdtx.projected(gdtx.scale_by_adam(), 2, 3)
    for side, shape in (("shorter", (5, 2)), ("longer", (2, 4)), ("i", (2, 4)), ("o", (5, 2))):
        state = tx.replace(side=side).init(draw(0, shapes))
        assert gdtx.find(matrices(state), "mu")["w"].shape == shape
    stack = {"w": (4, 6, 5)}
    layers = {str(i): (4, 5) for i in range(6)}
    whole = path(tx.replace(axes=[("w", "obi")]), stack)[0]["w"]
    gradients = jnp.stack([draw(1 + t, stack)["w"] for t in range(STEPS)])

    def step(state, g):
        updates, state = tx.update(g, state)
        return state, updates

    each = {i: gradients[:, :, int(i)].swapaxes(1, 2) for i in layers}
    first = jax.tree.map(lambda x: x[0], each)
    apart = jax.jit(lambda: jax.lax.scan(step, tx.init(first), each)[1])()
    close(whole, jnp.stack([apart[i].swapaxes(1, 2) for i in layers], 2))


def test_a_tall_and_a_wide_matrix_are_the_same_turned(x64):
    tx = gdtx.projected(gdtx.scale_by_adam(), 2, 3)
    rows = {"w": (5, 4)}
    wide = path(tx.replace(axes=[("w", "oi")]), rows)[0]["w"]
    close(path(tx, rows)[0]["w"], wide)


def test_complex_matrices(x64):
    """A unitary basis of all dimensions changes nothing of what turns with its input."""
    rng = np.random.default_rng(0)
    g = {"w": jnp.asarray(rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4)))}
    tx = gdtx.projected(gdtx.trace(0.9), 3)
    close(tx.update(g, tx.init(g))[0], g)


def test_a_basis_must_have_its_shape():
    tx = gdtx.projected(gdtx.identity(), 2, basis=lambda x, rank: jnp.eye(3))
    g = {"w": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match=r"updates\['w'\]: the basis must have the shape \(3, 2\)"):
        tx.update(g, tx.init(g))


def test_a_state_of_another_rank_is_refused():
    g = {"w": jnp.ones((3, 4))}
    state = gdtx.projected(gdtx.identity(), 1).init(g)
    with pytest.raises(ValueError, match="expected bases of shapes"):
        gdtx.projected(gdtx.identity(), 2).update(g, state)


def test_a_gradient_that_is_not_finite_shows_and_leaves_the_basis():
    tx = gdtx.projected(gdtx.identity(), 2, 1)
    g = {"w": jnp.asarray(draw(1)["w"], jnp.float32)}
    _, state = tx.update(g, tx.init(g))
    for bad in (jnp.nan, jnp.inf):
        updates, after = tx.update({"w": g["w"].at[1, 2].set(bad)}, state)
        assert np.isnan(updates["w"]).all()
        np.testing.assert_array_equal(matrices(after).basis["w"], matrices(state).basis["w"])
    chex.assert_tree_all_finite(tx.update(g, after)[0])


def test_dion_at_full_rank_comes_to_the_orthogonal_factor(x64):
    """Power iteration on a gradient that stays, with all of its momentum forgotten."""
    g = {"w": draw(3)["w"]}
    tx = gdtx.scale_by_dion(4, momentum=0.0, eps=0.0)
    state = tx.init(g)
    for _ in range(200):
        updates, state = tx.update(g, state)
    u, _, v = np.linalg.svd(g["w"], full_matrices=False)
    np.testing.assert_allclose(updates["w"], u @ v, atol=1e-6)


def test_dion_wastes_nothing(x64):
    """What it has not used is in the momentum: used parts and rest are all gradients together."""
    shapes = {"w": (5, 4)}
    tx = gdtx.scale_by_dion(2, momentum=0.0)
    params = draw(0, shapes)
    state, used = tx.init(params), 0.0
    for t in range(STEPS):
        g = draw(1 + t, shapes)
        before = matrices(state).momentum["w"] + g["w"]
        updates, state = tx.update(g, state)
        rest = matrices(state).momentum["w"]
        part = before - rest
        assert np.linalg.matrix_rank(part) == 2
        used = used + part
        # The update has the directions of the part, and columns of length 1 of it.
        np.testing.assert_allclose(np.linalg.norm(updates["w"], 2), 1, atol=0.5)
    close(used + rest, sum(draw(1 + t, shapes)["w"] for t in range(STEPS)))


TRAINED = {
    "galore": gdtx.galore(gdtx.adam(0.1), 2, 2),
    "dion": gdtx.dion(0.1, 2, ["w", "v"], gdtx.sgd(0.1)),
    "gaussian": gdtx.projected(
        gdtx.adam(0.1), 2, 2, basis="gaussian", moments="reset", body=gdtx.value_of("gains")
    ),
    "rotate": gdtx.projected(gdtx.adam(0.1), 2, 2, moments="rotate"),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name)
@pytest.mark.diagonal
def test_state_is_where_the_matrices_are_and_stays(name, axis_type):
    tx = TRAINED[name]
    some = {k: v for k, v in draw_sharded(0).items() if k in "wvb"}
    plain, state = [], tx.init(some)
    for t in range(3):
        updates, state = tx.update(draw_of(some, t), state, some)
        plain.append(updates)
    with on_mesh(axis_type) as put:
        params = put(some)
        state = tx.init(params)
        born = described(state)
        for t in range(3):
            updates, state = tx.update(put(draw_of(some, t)), state, params)
            assert described(state) == born
            chex.assert_trees_all_close(updates, plain[t], rtol=2e-3, atol=2e-4)
        # The side that stays as long as it was is cut as the parameter's.
        kept = gdtx.find(state, "right" if name == "dion" else "mu")
        kept = next(iter(kept.values())) if "w" not in kept else kept
        assert kept["w"].shape == (8, 2)
        where = NamedSharding(params["w"].sharding.mesh, PartitionSpec("data"))
        assert kept["w"].sharding.is_equivalent_to(where, 2)


def draw_of(tree, t):
    rng = np.random.default_rng(t)
    return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in tree.items()}


@pytest.mark.parametrize("name", ["gaussian", "rotate"])
def test_inside_shard_map(name):
    """Types of states stay: what is drawn varies as the parameters do."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    tx, params = TRAINED[name], {"w": jnp.ones((2, 3, 4))}

    def train(params):
        def step(state, g):
            updates, state = tx.update(g, state)
            return state, updates

        gradients = jax.tree.map(lambda p: jnp.stack([p[0]] * 3), params)
        return jax.lax.scan(step, tx.init(jax.tree.map(lambda p: p[0], params)), gradients)[1]

    spec = PartitionSpec("d")
    out = jax.shard_map(train, mesh=mesh, in_specs=(spec,), out_specs=PartitionSpec(None, "d"))
    assert jax.eval_shape(out, params)["w"].shape == (3, 6, 4)


def test_printed_formulas_are_what_is_computed(x64):
    """Of matrices of one number, of which a basis is 1."""
    gained = gdtx.join(gdtx.multiply, s=gdtx.value_of("gain"), o=gdtx.value_of("outside"))
    body = gdtx.join(gdtx.plus, i=gdtx.value_of("inside"), o=gained)
    cases = {
        "galore": gdtx.projected(gdtx.adam(0.1), 1, basis=identity_basis, axes=True),
        "body": gdtx.chain(
            gdtx.projected(gdtx.trace(0.9), 1, body=body, axes=True), gdtx.scale(-0.1)
        ),
        "dion": gdtx.chain(gdtx.scale_by_dion(1, 0.9, eps=0.1), gdtx.scale(-0.1)),
        "growth": gdtx.chain(gdtx.clip_by_growth(1.5), gdtx.scale(-0.1)),
    }
    gradients, theta = sample()
    for tx in cases.values():

        def step(carry, g, tx=tx):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gdtx.apply_updates(params, updates), state), updates

        params = [p.reshape(1, 1) for p in theta]
        columns = [g.reshape(-1, 1, 1) for g in gradients.T]
        got = jax.jit(lambda p, c, f=step, tx=tx: jax.lax.scan(f, (p, tx.init(p)), c)[1])(
            params, columns
        )
        text = gdtx.latex(tx, values=True).replace(r"^{\top}", "")
        text = text.replace(r"\mathcal{N}\left( 0, 1 \right)", "1")
        functions = {
            "singularvectors": lambda *_: 1, "identity_basis": lambda *_: 1,
            "orthonormal": np.sign, "columnnorms": np.abs,
        }  # fmt: skip
        want = evaluated(text, gradients, theta, functions=functions)
        np.testing.assert_allclose(np.array(got)[:, :, 0, 0].T, want, rtol=1e-8)
