"""The recipes of the site: each against a rule in NumPy, and against pytorch_optimizer."""

import functools
import importlib
import inspect
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import problem

import gdtx

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "_ext"))

from recipe import blocks, rendering

RECIPES = blocks.recipes()
MODULES = {name: importlib.import_module(f"recipes.{name}") for name in blocks.sections()}
ROWS = [peer for module in MODULES.values() for peer in module.PEERS]


def path(recipe):
    """Parameters after each step of an expression."""
    tx = recipe.transformation()
    gradient = problem.examples if recipe.examples else problem.gradient

    def step(carry, t):
        params, state = carry
        more = {name: problem.EXTRA[name](params, t, jnp) for name in recipe.extra}
        updates, state = tx.update(gradient(params, t, jnp), state, params, **more)
        params = gdtx.apply_updates(params, updates)
        seen = gdtx.eval_params(tx, state, params) if recipe.evaluated else params
        return (params, state), seen

    start = {key: jnp.asarray(problem.START[key]) for key in recipe.leaves}
    assert all(leaf.dtype == "float64" for leaf in jax.tree.leaves(start))
    run = jax.jit(lambda start: jax.lax.scan(step, (start, tx.init(start)), steps)[1])
    steps = jnp.arange(1, problem.STEPS + 1) * (not recipe.quiet)
    return jax.tree.map(np.asarray, run(start))


@functools.cache
def of_recipe(name):
    return path(RECIPES[name])


def of_rule(name):
    recipe = RECIPES[name]
    rule = getattr(MODULES[recipe.section], name)
    extra = {
        name: lambda params, t, f=problem.EXTRA[name]: f(params, t, np) for name in recipe.extra
    }
    start = {key: problem.START[key].copy() for key in recipe.leaves}
    gradient = problem.examples if recipe.examples else problem.gradient
    if recipe.quiet:
        gradient, extra = _quiet(gradient), {key: _quiet(f) for key, f in extra.items()}
    steps = rule(start, gradient, **extra)
    return stacked([next(steps) for _ in range(problem.STEPS)])


def _quiet(f):
    return lambda params, t: f(params, 0)


def stacked(steps):
    return {key: np.array([step[key] for step in steps]) for key in steps[0]}


def distance(ours, theirs):
    """The largest, relative to how far the parameters of an array have gone."""
    assert ours.keys() == theirs.keys()
    gone = {key: np.abs(theirs[key] - problem.START[key]).max() for key in theirs}
    assert min(gone.values()) > 1e-4, "a rule that hardly moves shows nothing"
    return max(np.abs(ours[key] - theirs[key]).max() / gone[key] for key in theirs)


@pytest.mark.once
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_paper(x64, name):
    apart = distance(of_recipe(name), of_rule(name))
    assert apart < 1e-12


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_rendered(name):
    text = rendering.rendered(RECIPES[name])
    assert "_t &= " in text
    assert "**State:**" in text


def test_every_recipe_has_a_rule_and_every_rule_a_recipe():
    for section, module in MODULES.items():
        rules = {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
        }
        assert rules == {recipe.name for recipe in blocks.sections()[section]}
    assert {peer.recipe for peer in ROWS} <= RECIPES.keys()


def test_there_are_sixty():
    assert len(RECIPES) >= 60


def test_the_page_has_every_section():
    page = (blocks.FOLDER.parent / "recipes.md").read_text()
    assert [name for name in MODULES if f"{{include}} recipes/{name}.md" not in page] == []


@pytest.mark.first(12)
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.recipe} {row.theirs}" for row in ROWS])
def test_pytorch_optimizer(x64, row):
    theirs = of_peer(row)
    apart = distance(of_recipe(row.recipe), theirs)
    if not row.differs:
        assert apart < row.rtol
        return
    assert apart > 1e-9
    if row.theirs_is:
        apart = distance(path(RECIPES[row.recipe]._replace(code=row.theirs_is)), theirs)
        assert apart < row.rtol


def of_peer(row):
    because = "pytorch_optimizer is installed by the extra 'peers'"
    torch = pytest.importorskip("torch", reason=because)
    peers = pytest.importorskip("pytorch_optimizer", reason=because)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        params = {
            key: torch.tensor(problem.START[key], requires_grad=True)
            for key in RECIPES[row.recipe].leaves
        }
        # The method that another is around is named.
        settings = {
            name: getattr(torch.optim, x) if name == "base_optimizer" else x
            for name, x in row.settings.items()
        }
        optimizer = getattr(peers, row.theirs)(list(params.values()), **settings)
        steps = []
        for t in range(1, problem.STEPS + 1):

            def differentiate(t=t):
                at = {key: p.detach().numpy() for key, p in params.items()}
                for key, g in problem.gradient(at, t).items():
                    params[key].grad = torch.tensor(g)
                return at

            at, extra = differentiate(), RECIPES[row.recipe].extra
            given = {}
            if "hessian" in extra:
                given["hessian"] = [torch.tensor(h) for h in problem.hessian(at, t).values()]
            optimizer.step(differentiate if "grad_fn" in extra else None, **given)
            if RECIPES[row.recipe].evaluated:
                optimizer.eval()
            steps.append({key: p.detach().numpy().copy() for key, p in params.items()})
            if RECIPES[row.recipe].evaluated:
                optimizer.train()
        return stacked(steps)
    finally:
        torch.set_default_dtype(default)
