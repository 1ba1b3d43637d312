"""Extra arguments, such as `value`, through Optax's wrappers."""

import jax
import jax.numpy as jnp
import optax
import pytest
from everything import PARAMS, extras

import gdtx
from gdtx.interop import to_optax

MASK = {"b": True, "w": True}
WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.scale(1.0), tx),
    "named_chain": lambda tx: optax.named_chain(("one", tx)),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "masked": lambda tx: optax.masked(tx, MASK),
    "partition": lambda tx: optax.partition({"all": tx}, {"b": "all", "w": "all"}),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda one: tx)(one=1.0),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step > 0),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step > 0),
}
ASKING = {
    "value": gdtx.reduce_on_plateau(),
    "grad_fn": gdtx.sharpness_aware(gdtx.sgd(0.1)),
    "curvature": gdtx.scale_by_kfac(),
    "tree": gdtx.value_of("tree"),
}
GIVEN = {name: extras("kfac" if name == "curvature" else "", PARAMS)[name] for name in ASKING}


def update(tx, name):
    def step(params):
        return tx.update(params, tx.init(params), params, **{name: GIVEN[name]})

    return jax.eval_shape(step, PARAMS)


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_extra_arguments_arrive_with_to_optax(wrapper, name):
    updates, _ = update(WRAPPERS[wrapper](to_optax(ASKING[name])), name)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, PARAMS)


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_where_they_do_not_the_error_says_what_helps(wrapper, name):
    message = rf"{name}=\.\.\..*Optax's wrappers pass it to gdtx\.interop\.to_optax\(tx\) only"
    with pytest.raises(TypeError, match=message):
        update(WRAPPERS[wrapper](ASKING[name]), name)
