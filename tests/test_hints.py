"""What runs, or is called by its right name, and is still not what was meant."""

import warnings

import jax
import jax.numpy as jnp
import pytest

import gdtx
from gdtx import adam, add_decayed_weights, chain, clip, scale, scale_by_adam, sgd

RATE = gdtx.constant_schedule(0.1)


@pytest.mark.parametrize(
    "links",
    [
        (adam(0.1), scale(-1.0)),
        (clip(1.0), adam(RATE), clip(1.0), scale(-1)),
        (gdtx.lamb(RATE, b1=RATE), scale(-1.0)),
        (chain(clip(1.0), sgd(0.1)), scale(-1.0)),
        (chain(scale_by_adam(), gdtx.scale_by_learning_rate(0.1)), scale(-1.0)),
        (gdtx.rprop(0.1), scale(-1.0)),
        (gdtx.adafactor(0.1), scale(-1.0)),
        (chain(scale_by_adam(), scale(-0.1)), scale(-1.0)),
        (scale(-1.0), adam(0.1), scale(-1.0), scale(2.0)),
    ],
)
def test_a_method_whose_sign_is_changed_again_gets_a_warning(links):
    with pytest.warns(UserWarning, match=r"^chain: links\[\d\], .* uphill.* To maximize") as seen:
        tx = chain(*links)
    assert [each.filename for each in seen] == [__file__]
    with warnings.catch_warnings():  # and none when it is used
        warnings.simplefilter("error")
        tx.init(jnp.ones(2))


def test_the_warning_names_the_links():
    with pytest.warns(UserWarning, match="chain") as seen:
        chain(clip(1.0), adam(0.1), scale(-2.0))
    assert str(seen[0].message) == (
        "chain: links[2], scale(factor=-2.0), turns the steps of links[1] uphill, because adam "
        "changes the sign already. To maximize, change that of the gradients instead, which leaves "
        "decay as it is: chain(scale(-1.0), adam(...))"
    )


@pytest.mark.parametrize(
    "links",
    [
        (scale(-1.0), adam(0.1)),  # to maximize
        (scale_by_adam(), scale(-0.1)),
        (scale_by_adam(), scale(RATE), scale(-1.0)),
        (adam(0.1), scale(0.5)),
        (adam(0.1), scale(-1.0), scale(-1.0)),
        (gdtx.scale_by_learning_rate(0.1, flip_sign=False), scale(-1.0)),
        (gdtx.scale_by_learning_rate(0.1), gdtx.trace(0.9)),
        (gdtx.masked(adam(0.1), True), add_decayed_weights(0.1)),
    ],
)
def test_others_get_none(links):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chain(*links)


def test_to_maximize_is_a_sign_before_the_method():
    """Decay stays decay, which after a sign at the end would be growth."""
    params = jnp.array([1.0])
    uphill = chain(scale(-1.0), gdtx.adamw(0.1, weight_decay=0.5))
    update, _ = uphill.update(jnp.array([3.0]), uphill.init(params), params)
    assert update == pytest.approx(0.1 - 0.1 * 0.5, rel=1e-5)


def test_the_module_of_kfac_says_where_the_method_is():
    with pytest.raises(
        TypeError, match=r"^gdtx\.kfac is a module, the method in it is gdtx\.kfac\.kfac$"
    ):
        gdtx.kfac(0.1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"^chain: links\[0\] .* got the module gdtx\.kfac$"):
        chain(gdtx.kfac)  # pyright: ignore[reportArgumentType]
    assert jax.tree.leaves(gdtx.kfac.kfac(0.1)) == []
