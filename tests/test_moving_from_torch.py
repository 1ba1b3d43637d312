"""The tables of docs/moving/torch.md, row by row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from moving import MOVING, STEPS, check, evaluated, ours, paths, problem, rows

import gdtx


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch", reason="PyTorch is installed by the extra 'peers'")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(default)


def torch_params(torch):
    return {name: torch.tensor(value, requires_grad=True) for name, value in problem()[1].items()}


def torch_path(torch, code):
    leaves = torch_params(torch)
    names = {"params": list(leaves.values()), **leaves, **vars(torch.nn.utils)}
    if "opt.step()" in code:
        names["opt"] = evaluated("SGD(params, lr)", torch.optim, **names)
        each_step = [compile(code, code, "exec")]
    else:
        optimizers = [evaluated(part.strip(), torch.optim, **names) for part in code.split(";")]
        each_step = [optimizer.step for optimizer in optimizers]
    path = {name: [] for name in leaves}
    for i in range(STEPS):
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(problem()[0][name][i])
        for do in each_step:
            do() if callable(do) else exec(do, names | {"c": evaluated("c", gdtx)})
        for name, leaf in leaves.items():
            path[name].append(leaf.detach().numpy().copy())
    states = {} if "opt.step()" in code else optimizers[0].state
    averages = {
        name: states[leaf]["ax"].numpy()
        for name, leaf in leaves.items()
        if "ax" in states.get(leaf, {})
    }
    return {name: np.array(values) for name, values in path.items()}, averages


@pytest.mark.parametrize("section", ["torch: the same numbers", "torch: other numbers"])
def test_torch(section, torch, monkeypatch, x64):
    # Their Muon iterates in it, and its rounding is larger than what another rule would change.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    transformations = ours(section)
    found, last = paths(transformations)
    theirs = {left: torch_path(torch, left) for left, _ in rows(section)}
    check(section, found, {left: path for left, (path, _) in theirs.items()})
    for name, (_, averages) in theirs.items():
        if averages:
            params, state = last[name]
            mean = gdtx.eval_params(transformations[name], state, params)
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), mean, averages)


def test_torch_averages(torch, x64):
    ((left, right),) = rows("torch: averaged weights")
    gradients, _ = problem()
    tx = evaluated(right, gdtx)
    params, state = paths({left: tx})[1][left]
    model = torch.nn.ParameterDict(torch_params(torch))
    optimizer = evaluated("SGD(params, lr)", torch.optim, params=model.values())
    averaged = evaluated(left, torch.optim.swa_utils, model=model)
    for i in range(STEPS):
        for name, leaf in model.items():
            leaf.grad = torch.tensor(gradients[name][i])
        optimizer.step()
        averaged.update_parameters(model)
    for name, mean in gdtx.eval_params(tx, state, params).items():
        theirs = averaged.module[name].detach().numpy()
        np.testing.assert_allclose(mean, theirs, rtol=1e-12)


def torch_scheduler(torch, code):
    theta = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([theta], evaluated("lr", gdtx), momentum=0.9)
    schedulers = vars(torch.optim.lr_scheduler) | vars(torch.optim.swa_utils)
    return optimizer, evaluated(code, torch.optim, opt=optimizer, **schedulers)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(
    ("section", "number"), [("torch: learning rates", "lr"), ("torch: momenta", "momentum")]
)
def test_torch_schedulers(section, number, torch, x64):
    for left, right in rows(section):
        optimizer, scheduler = torch_scheduler(torch, left)
        expected = []
        for _ in range(STEPS):
            expected.append(optimizer.param_groups[0][number])
            optimizer.step()
            scheduler.step()
        found = np.broadcast_to(evaluated(right, gdtx)(jnp.arange(STEPS)), STEPS)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-16, err_msg=left)


def test_torch_plateaus(torch):
    rng = np.random.default_rng(0)
    # Few enough of them that no rate falls below what torch still changes.
    values = np.concatenate([np.linspace(2, 1, 12), rng.uniform(0.9, 1.1, 12), np.full(12, 0.5)])
    transformations = ours("torch: what sees the loss")

    def step(states, value):
        out = {
            name: tx.update(jnp.ones(()), states[name], value=value)
            for name, tx in transformations.items()
        }
        return {name: s for name, (_, s) in out.items()}, {name: u for name, (u, _) in out.items()}

    start = {name: tx.init(jnp.zeros(())) for name, tx in transformations.items()}
    _, factors = jax.lax.scan(step, start, values.astype(np.float32))
    for left, found in factors.items():
        optimizer, scheduler = torch_scheduler(torch, left)
        rate = optimizer.param_groups[0]["lr"]
        expected = []
        for value in values:
            scheduler.step(value)
            expected.append(scheduler.get_last_lr()[0] / rate)
        assert len(set(expected)) > 2
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=left)


def test_every_optimizer_and_scheduler_of_torch_has_a_row(torch):
    schedulers = torch.optim.lr_scheduler
    kinds = {
        "torch: learning rates": (schedulers, schedulers.LRScheduler),
        "torch: the same numbers": (torch.optim, torch.optim.Optimizer),
    }
    for section, (module, base) in kinds.items():
        names = {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and name[0] != "_"
        } - {base.__name__}
        assert len(names) > 10
        text = MOVING[MOVING.index(f"## {section}") :]
        assert {name for name in names if f"`{name}" not in text} == set()
