"""Options: arguments that belong together are data, and reachable as those of a call are."""

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest

import gdtx

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
OPTIONS = {
    gdtx.Roots: gdtx.Roots(every=2, method="newton", dtype="float32"),
    gdtx.Bases: gdtx.Bases(every=2, stale=False),
    gdtx.Blocks: gdtx.Blocks(2, stacked=False),
    gdtx.Polar: gdtx.Polar([(1.0, 2.0), (3.0,)], dtype="bfloat16"),
    gdtx.Whitening: gdtx.Whitening(every=2, max_skew=None),
}
by_class = pytest.mark.parametrize("cls", OPTIONS)


class Settings(gdtx.Options):
    """A user's own."""

    rate: gdtx.NonNegative
    decay: gdtx.Decay = 0.5
    roots: gdtx.Roots = gdtx.Roots(every=3)


@gdtx.transformation
def scaled(settings: Settings = Settings(1.0)):
    return gdtx.chain(gdtx.ema(settings.decay), gdtx.scale(settings.rate))


def test_these_are_all():
    assert {x for x in vars(gdtx).values() if isinstance(x, type)
            and issubclass(x, gdtx.Options)} == {*OPTIONS, gdtx.Options}  # fmt: skip


@by_class
def test_are_data(cls):
    options = OPTIONS[cls]
    for same in (eval(repr(options), vars(gdtx)), copy.deepcopy(options),
                 pickle.loads(pickle.dumps(options))):  # fmt: skip
        assert type(same) is cls
        assert (same, hash(same)) == (options, hash(options))
    assert options != cls()
    assert jax.tree.leaves(options) == []
    for name, value in options.arguments.items():
        assert getattr(options, name) == value
        with pytest.raises(AttributeError):
            setattr(options, name, value)


def test_inherit_what_others_name():
    class Late(gdtx.Roots):
        start: gdtx.Count = 5
        end: gdtx.Count | None = None

    late = Late(every=2, end=7)
    assert (late.every, late.start, late.end) == (2, 5, 7)
    assert repr(late).startswith("Late(every=2, start=5, stale=False, method='eigh', ")
    assert gdtx.shampoo(0.1, roots=late).arguments["roots"] == late


def test_print_what_is_not_the_default():
    tx = gdtx.shampoo(0.1, roots=gdtx.Roots(every=2), blocks=gdtx.Blocks())
    assert str(tx) == "shampoo(0.1, roots=Roots(every=2))"
    assert "Roots(every=2, start=1, stale=False, method='eigh', tolerance=0.1, " in repr(tx)


def test_are_checked_like_other_arguments():
    for make, error, message in [
        (lambda: gdtx.Roots(every=0), ValueError, "Roots: every must be a positive integer, got 0"),
        (lambda: gdtx.Blocks(merge_size=2.0), ValueError,
         "Blocks: merge_size must be a non-negative integer, got 2.0"),
        (lambda: gdtx.Roots(tolerance=jnp.array(-1.0)), ValueError,
         "Roots: tolerance must be a non-negative finite number, got -1.0 in an array"),
        (lambda: gdtx.Bases(evry=3), TypeError, "Bases: unknown argument 'evry', did you mean "
         "'every'?; Bases takes (every, start, stale, method, batch_size, dtype)"),
        (lambda: gdtx.soap(0.1, bases=gdtx.Roots(every=3)), TypeError,
         "soap: bases must be Bases(...), got Roots(every=3, "),
        (lambda: gdtx.shampoo(0.1).replace(**{"roots.every": -1}), ValueError,
         "Roots: every must be a positive integer, got -1"),
        (lambda: Settings(), TypeError, "Settings: missing a required argument: 'rate'"),
    ]:  # fmt: skip
        with pytest.raises(error) as raised:
            make()
        assert str(raised.value).startswith(message)


OLD = {
    "block_size": ("blocks.size", [gdtx.scale_by_shampoo, gdtx.shampoo, gdtx.scale_by_soap,
                                   gdtx.soap, gdtx.blockwise]),
    "merge_size": ("blocks.merge_size", [gdtx.shampoo, gdtx.soap]),
    "stacked": ("blocks.stacked", [gdtx.shampoo, gdtx.soap]),
    "update_every": ("roots.every", [gdtx.shampoo, gdtx.precondition]),
    "start": ("bases.start", [gdtx.soap, gdtx.in_eigenbasis]),
    "stale": ("roots.stale", [gdtx.shampoo]),
    "tolerance": ("roots.tolerance", [gdtx.shampoo, gdtx.precondition]),
    "root_dtype": ("roots.dtype", [gdtx.shampoo]),
    "basis_dtype": ("bases.dtype", [gdtx.soap]),
    "batch_size": ("bases.batch_size", [gdtx.soap]),
    "coefficients": ("polar.coefficients", [gdtx.muon, gdtx.scale_by_muon, gdtx.orthogonalize]),
    "batched": ("polar.batched", [gdtx.muon]),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_an_old_keyword_is_told_its_new_place(name):
    place, factories = OLD[name]
    argument, inner = place.split(".")
    for factory in factories:
        cls = factory.__gdtx_signature__.parameters[argument].default.signature.name
        hint = f"did you mean {place!r}, as in {argument}={cls}({inner}=...)?"
        with pytest.raises(TypeError) as raised:
            factory(**{name: 1})
        assert f"unknown argument {name!r}, {hint}" in str(raised.value)
    with pytest.raises(TypeError, match="no argument 'update_every' to replace, did you mean 'roo"):
        gdtx.shampoo(0.1).replace(update_every=2)


def test_are_reached_by_path():
    tx = gdtx.chain(gdtx.shampoo(0.1), scaled())
    paths = gdtx.hyperparams(tx)
    assert {"0.roots.every", "0.roots.tolerance", "0.blocks.stacked", "1.settings.rate",
            "1.settings.roots.every"} <= paths.keys()  # fmt: skip
    assert (paths["0.roots.every"], paths["1.settings.roots.every"]) == (10, 3)
    assert "0.roots.method" not in paths  # neither are other strings
    new = gdtx.replace(tx, {"0.roots.method": "newton", "1.settings.roots.every": 7})
    assert new == gdtx.chain(
        gdtx.shampoo(0.1, roots=gdtx.Roots(method="newton")),
        scaled(Settings(1.0, roots=gdtx.Roots(every=7))),
    )
    assert gdtx.hyperparams(new) == paths | {"1.settings.roots.every": 7}


def test_arrays_in_them_are_leaves_and_change_without_compiling():
    tx = gdtx.as_arrays(scaled(), "settings.rate")
    assert list(map(float, jax.tree.leaves(tx))) == [1.0]
    traced = []

    @jax.jit
    def first(tx):
        traced.append(1)
        return tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0]

    assert (float(first(tx)), float(first(tx.replace(**{"settings.rate": 3.0})))) == (0.5, 1.5)
    assert len(traced) == 1
    held = gdtx.tunable(scaled(), "settings.decay")
    state = gdtx.set_hyperparams(held.init(PARAMS), **{"settings.decay": 0.75})
    updates, _ = jax.eval_shape(held.update, PARAMS, state)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, PARAMS)
    assert float(held.update({"b": jnp.ones(())}, held.init({"b": jnp.ones(())})._replace(
        hyperparams=state.hyperparams))[0]["b"]) == 0.25  # fmt: skip
