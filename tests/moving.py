"""The tables of docs/moving, and how a row of one is run and compared."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gdtx

FOLDER = Path(__file__).parent.parent / "docs" / "moving"
LIBRARIES = ("Optax", "torch", "Keras")
MOVING = "".join((FOLDER / f"{name.lower()}.md").read_text() for name in LIBRARIES)
STEPS = 100
SECTIONS = dict(re.findall(r"^## (\w+: .*?)\n(.*?)(?=^#|\Z)", MOVING, re.DOTALL | re.MULTILINE))
SYMBOLS = (FOLDER / "symbols.py").read_text()

# How far a position may be from that of the expression on the left, and why.
FLOAT32_DECAY = "they compute the decay in float32"
FLOAT32_RATE = "they compute the rate in float32"
NAIVE_RHO = "they subtract numbers near 2 / (1 - b2) to get a rho_t near 5"
LOOSENED = {
    "radam(lr)": (1e-11, NAIVE_RHO),
    "RAdam(params, lr)": (1e-11, NAIVE_RHO),
    "RAdam(params, lr, weight_decay=wd, eps=0.0, decoupled_weight_decay=True)": (1e-11, NAIVE_RHO),
    "chain(adafactor(), scale(lr))": (1e-5, FLOAT32_DECAY),
    "scale_by_factored_rms": (1e-4, FLOAT32_DECAY),
    "contrib.schedule_free_sgd(lr, warmup_steps=n)": (1e-7, FLOAT32_RATE),
    "contrib.schedule_free_adamw(lr, warmup_steps=n)": (1e-7, FLOAT32_RATE),
    "MultiSteps(adam(lr), k)": (1e-8, "they take the weights of the mean in float32"),
    "contrib.galore(lr, rank=2)": (1e-5, "they find singular vectors in float32"),
    "contrib.muon(lr)": (1e-6, "they add 1e-8 to the norm of the momentum"),
    "Muon(lr)": (1e-6, "they keep the norm of the momentum in float32, and add 1e-7"),
    "Adafactor(lr)": (1e-6, "they take a mean in float32"),
}


def rows(section):
    """Both expressions of each row; a line of a table without them is an error."""
    _, *lines = (line for line in SECTIONS[section].splitlines() if line.startswith("| "))
    code = r"`([^`]*)`"
    found = [re.match(rf"\| {code} \| {code} \|", line) for line in lines]
    assert lines
    assert all(found), lines[found.index(None)]
    return [match.groups() for match in found]


def evaluated(code, names, **more):
    with_symbols = {"__name__": "moving", "jax": jax, "jnp": jnp, "np": np}
    exec(SYMBOLS, with_symbols)
    # Lambdas look names up among the globals.
    return eval(code, vars(names) | with_symbols | more)


def ours(section):
    return {left: evaluated(right, gdtx) for left, right in rows(section)}


@functools.cache
def problem():
    """Gradients over seven decades, so that no place of an epsilon is like another."""
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 2), "b": (2,)}

    def some(*shape):
        return (rng.normal(size=shape) + 0.5) * 10 ** rng.uniform(-6, 1, shape)

    gradients = {name: some(STEPS, *shape) for name, shape in shapes.items()}
    return gradients, {name: rng.uniform(1, 2, shape) for name, shape in shapes.items()}


def paths(transformations):
    """The parameters after each step with each of them, and what is last, from one program."""
    gradients, start = problem()

    def run(tx, start):
        def step(carry, gradient):
            params, state = carry
            updates, state = tx.update(gradient, state, params)
            params = jax.tree.map(jnp.add, params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, tx.init(start)), gradients)

    def run_all(start):
        return {name: run(tx, start) for name, tx in transformations.items()}

    both = jax.jit(run_all)(jax.tree.map(jnp.asarray, start))
    found = {name: jax.tree.map(np.asarray, path) for name, (_, path) in both.items()}
    return found, {name: last for name, (last, _) in both.items()}


def distances(found, expected):
    """Of each path from the one expected, in units of what it may be."""
    worst = {}
    for name, theirs in expected.items():
        rtol, _ = LOOSENED.get(name, (1e-12, ""))
        worst[name] = max(
            np.max(np.abs(found[name][leaf] - theirs[leaf]) / (rtol * np.abs(theirs[leaf])))
            for leaf in theirs
        )
    return worst


def check(section, found, expected):
    worst = distances(found, expected)
    assert set(worst) == {left for left, _ in rows(section)}
    if section.endswith("same numbers"):
        assert {name: size for name, size in worst.items() if not size <= 1} == {}
    else:
        assert {name: size for name, size in worst.items() if not size > 100} == {}
