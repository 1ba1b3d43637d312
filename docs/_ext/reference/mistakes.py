"""The errors that users meet, as calls that raise them, with their causes and cures.

A row is a title, a program of which the last line raises or warns, and what to do.
"""

PARAMS = 'params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}'

CALLING = [
    (
        "A name from another library",
        "gdtx.adam(lr=1e-3)",
        "Arguments have Optax's names, whatever the method: `learning_rate`, `b1`, `b2`, `eps`, "
        "`weight_decay`, `momentum`, `mask`. The message lists all that it takes.",
    ),
    (
        "Two arguments that another library has as a pair",
        "gdtx.adamw(1e-3, betas=(0.9, 0.95))",
        "Write `b1=0.9, b2=0.95`.",
    ),
    (
        "A number out of its range",
        "gdtx.ema(1.5)",
        "A decay is the share that stays, so that a long average has one just below 1. The ranges "
        "of all arguments are in {doc}`kinds`.",
    ),
    (
        "A text where a number belongs",
        'gdtx.adam("1e-3")',
        "Often a value from a configuration file that was not yet turned into a number.",
    ),
    (
        "A dtype where the name says another thing",
        "gdtx.adamw(1e-3, weight_decay=jnp.bfloat16)",
        "Moments are in float32 at least. Links such as {py:obj}`~gdtx.ema` take a `dtype`, and "
        "{py:obj}`~gdtx.master_weights` keeps copies of parameters in half precision.",
    ),
    (
        "An argument of an option",
        "gdtx.shampoo(0.1, block_size=128)",
        "Arguments that belong together are given as one: `blocks=gdtx.Blocks(128)`.",
    ),
    (
        "A name that Optax has and gdtx does not",
        "gdtx.multi_transform",
        "The message names what does it here. {doc}`/moving/optax` has them all.",
    ),
    (
        "The module in place of the method",
        "gdtx.kfac(0.1)",
        "`gdtx.kfac.kfac(0.1)`: the module holds the losses and the curvature too.",
    ),
    (
        "A link that is no transformation",
        "gdtx.chain(gdtx.clip, gdtx.adam(0.1))",
        "The parentheses are missing: `gdtx.clip(1.0)`.",
    ),
    (
        "Steps that go uphill",
        "gdtx.chain(gdtx.adam(0.1), gdtx.scale(-1.0))",
        "A warning. Methods change the sign themselves, and `apply_updates` adds. Leave the last "
        "link away, or to maximize put the sign first.",
    ),
]

UPDATING = [
    (
        "A gradient of another shape than its parameter",
        f"{PARAMS}\ntx = gdtx.adam(0.1)\nstate = tx.init(params)\n"
        'tx.update({"w": jnp.ones((3, 2)), "b": jnp.ones(3)}, state, params)',
        "Most often a loss that was differentiated in something else than these parameters, or a "
        "transposed matrix. The path says which leaf.",
    ),
    (
        "A gradient of another shape than its state",
        "tx = gdtx.chain(gdtx.trace(0.9), gdtx.scale(-0.1))\n"
        'state = tx.init({"w": jnp.ones((2, 3))})\ntx.update({"w": jnp.ones((3, 2))}, state)',
        "The same mistake where `update` was not given the parameters: then the first link that "
        "keeps something sees it, here `trace` in the chain. Or `init` was given other parameters.",
    ),
    (
        "Gradients of another structure",
        f"{PARAMS}\ntx = gdtx.adam(0.1)\nstate = tx.init(params)\n"
        'tx.update({"w": jnp.ones((2, 3))}, state, params)',
        "Gradients, parameters and what `init` was given must be the same tree.",
    ),
    (
        "No parameters given",
        f"{PARAMS}\ntx = gdtx.adamw(0.1)\nstate = tx.init(params)\ntx.update(params, state)",
        "Decay, trust ratios and averages need the parameters, as in "
        "`tx.update(gradients, state, params)`. It is a good habit to give them always.",
    ),
    (
        "No value given",
        f"{PARAMS}\ntx = gdtx.chain(gdtx.adam(0.1), gdtx.reduce_on_plateau())\n"
        "tx.update(params, tx.init(params), params)",
        "`tx.update(gradients, state, params, value=loss)`: what `jax.value_and_grad` returns "
        "beside the gradients. Every transformation around it hands `value` on.",
    ),
    (
        "No function of the gradient given",
        f"{PARAMS}\ntx = gdtx.sharpness_aware(gdtx.sgd(0.1))\n"
        "tx.update(params, tx.init(params), params)",
        "It takes the gradient at another point: "
        "`tx.update(gradients, state, params, grad_fn=jax.grad(loss))`.",
    ),
    (
        "No curvature given",
        f"{PARAMS}\ntx = gdtx.kfac.kfac(0.1)\ntx.update(params, tx.init(params), params)",
        "{py:obj}`gdtx.kfac.value_grad_and_curvature` returns it beside value and gradient.",
    ),
    (
        "Integer parameters",
        'gdtx.adam(0.1).init({"w": jnp.ones(3), "step": jnp.zeros((), int)})',
        "Keep counters, random keys and tables out of the parameters, or hold them fixed by "
        "{py:obj}`~gdtx.freeze`.",
    ),
    (
        "The state of another transformation",
        f"{PARAMS}\nstate = gdtx.sgd(0.1, momentum=0.9).init(params)\n"
        "gdtx.adam(0.1).update(params, state, params)",
        "The transformation was changed after `init`, or a checkpoint is of another. "
        "A rate may change, a link may not: "
        "make the state anew, or keep the buffers that still have a place by {py:obj}`~gdtx.find`.",
    ),
    (
        "Parameters and state in the wrong order",
        f"{PARAMS}\ntx = gdtx.adam(0.1)\ntx.update(params, params, tx.init(params))",
        "The order is `update(gradients, state, params)`.",
    ),
    (
        "The state of a model that has grown since",
        f"{PARAMS}\ntx = gdtx.adam(0.1)\nstate = tx.init(params)\n"
        'more = params | {"head": jnp.zeros(2)}\ntx.update(more, state, more)',
        "`init` again. For parameters that come later, {py:obj}`~gdtx.partition` lets a group "
        "have a state of its own.",
    ),
]

SCHEDULING = [
    (
        "A Python `if` on the step",
        f"{PARAMS}\ntx = gdtx.sgd(lambda t: 0.1 if t < 100 else 0.01)\n"
        "tx.update(params, tx.init(params), params)",
        "The step is traced, so that one program serves all steps: "
        "`jnp.where(t < 100, 0.1, 0.01)`, or "
        "{py:obj}`~gdtx.piecewise_constant_schedule`.",
    ),
    (
        "A schedule that returns no scalar",
        f"{PARAMS}\ntx = gdtx.sgd(lambda t: jnp.array([0.1, 0.01]))\n"
        "tx.update(params, tx.init(params), params)",
        "One number a step. For a rate for each group use {py:obj}`~gdtx.partition`.",
    ),
    (
        "A function of more than the step",
        "gdtx.sgd(lambda step, loss: 0.1 / step)",
        "What depends on the loss is a link: {py:obj}`~gdtx.reduce_on_plateau`, or one of your own "
        "that takes `value=`.",
    ),
    (
        "A count out of its range",
        "gdtx.accumulate_gradients(gdtx.adam(0.1), every=0)",
        "Counts are constants from 1 on; `every` may also be a function of the number of updates "
        "done.",
    ),
    (
        "Another program for each value",
        "params = jnp.ones(2)\nfor i in range(20):\n    tx = gdtx.sgd(0.01 * (i + 1))\n"
        "    tx.update(params, tx.init(params), params)",
        "A warning, once. Numbers are constants of the program: for one that changes, give an "
        "array, `gdtx.as_arrays(tx)`, or a schedule.",
    ),
    (
        "A name that is no hyperparameter",
        'gdtx.replace(gdtx.chain(gdtx.clip(1.0), gdtx.adam(0.1)), {"learning_rate": 0.01})',
        "In a chain, names have the number of their link before them: "
        "{py:obj}`~gdtx.hyperparams` of the transformation lists them all.",
    ),
    (
        "Replacing what the transformation does not have",
        "gdtx.adam(0.1).replace(lr=0.01)",
        "`replace` takes the names that the factory takes.",
    ),
    (
        "Changing a hyperparameter of a state that has none",
        f"{PARAMS}\nstate = gdtx.adam(0.1).init(params)\n"
        "gdtx.set_hyperparams(state, learning_rate=0.01)",
        "Values are in the state only inside {py:obj}`~gdtx.tunable`, as in "
        "`tx = gdtx.tunable(gdtx.adam(0.1))`. This is what frameworks need that hold the "
        "transformation fixed, such as flax's `nnx.Optimizer` and `TrainState`.",
    ),
]

CHOOSING = [
    (
        "A pattern that matches nothing",
        f'{PARAMS}\ngdtx.freeze(gdtx.adam(0.1), ["encoder/**"]).init(params)',
        "The message lists the paths that there are. `*` stands for a part of one component, `**` "
        "for any number of them.",
    ),
    (
        "A leaf without a label",
        f"{PARAMS}\n"
        'tx = gdtx.partition({"slow": gdtx.sgd(0.01)}, [("w", "slow")])\ntx.init(params)',
        'End the list with a pattern that takes the rest, `("**", "rest")`.',
    ),
    (
        "A label without a transformation",
        f"{PARAMS}\n"
        'tx = gdtx.partition({"slow": gdtx.sgd(0.01)}, {"w": "slow", "b": "fast"})\n'
        "tx.init(params)",
        "Give each label a transformation; `gdtx.set_to_zero()` holds a group where it is.",
    ),
    (
        "A mask of another tree",
        f'{PARAMS}\ngdtx.masked(gdtx.adam(0.1), {{"w": True}}).init(params)',
        "A mask has the structure of the parameters, or is a list of patterns, or a function of "
        "path and leaf.",
    ),
    (
        "A matrix method on a vector",
        f"{PARAMS}\ngdtx.scale_by_muon().init(params)",
        "Leave vectors to another method: {py:obj}`~gdtx.muon` takes which are matrices and what "
        "trains the others, {py:obj}`~gdtx.masked` and {py:obj}`~gdtx.partition` do it for any.",
    ),
    (
        "Nothing to read by this name",
        f'{PARAMS}\ngdtx.find(gdtx.adam(0.1).init(params), "momentum")',
        "The message lists what there is; {py:obj}`~gdtx.state_table` shows it with shapes.",
    ),
    (
        "Parameters in place of the transformation",
        f"{PARAMS}\ngdtx.latex(params)",
        "What reads a formula takes a transformation, and what reads numbers takes its state.",
    ),
]

SECTIONS = {
    "Making a transformation": CALLING,
    "Updating": UPDATING,
    "Schedules and hyperparameters": SCHEDULING,
    "Choosing parameters, reading states": CHOOSING,
}
