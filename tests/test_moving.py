"""The tables of docs/moving.md: every row is run, in gdtx and in the library that it names."""

import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")

ROOT = Path(__file__).parent.parent
MOVING = (ROOT / "docs" / "moving.md").read_text()
README = (ROOT / "README.md").read_text()
STEPS = 100
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", MOVING, re.DOTALL | re.MULTILINE))
SYMBOLS = re.search(r"```python\n(.*?)```", MOVING, re.DOTALL).group(1)

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
    "contrib.muon(lr)": (1e-6, "they add 1e-8 to the norm of the momentum"),
}


def test_every_table_is_run():
    assert set(SECTIONS) == {
        "Optax: the same numbers", "Optax: other numbers", "Optax: other programs",
        "torch: the same numbers", "torch: other numbers", "torch: averaged weights",
        "torch: learning rates", "torch: momenta", "torch: what sees the loss",
    }  # fmt: skip
    tables = sum(line.startswith("|---") for line in MOVING.splitlines())
    assert tables == len(SECTIONS)


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
    """The parameters after each step with each of them, from one compiled scan."""
    gradients, start = problem()

    def step(carry, gradient):
        after = {}
        for name, (params, state) in carry.items():
            updates, state = transformations[name].update(gradient, state, params)
            after[name] = jax.tree.map(jnp.add, params, updates), state
        return after, {name: params for name, (params, _) in after.items()}

    def run(start):
        carry = {name: (start, tx.init(start)) for name, tx in transformations.items()}
        return jax.lax.scan(step, carry, gradients)

    last, found = jax.jit(run)(jax.tree.map(jnp.asarray, start))
    return jax.tree.map(np.asarray, found), last


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


@pytest.mark.parametrize("section", ["Optax: the same numbers", "Optax: other numbers"])
def test_optax(section, x64):
    theirs = {left: evaluated(left, optax) for left, _ in rows(section)}
    both, _ = paths({"ours " + name: tx for name, tx in ours(section).items()} | theirs)
    check(
        section,
        {name: both["ours " + name] for name in theirs},
        {name: both[name] for name in theirs},
    )


# What the others need; a list of positional ones would not be the same in both.
GIVEN = {
    "learning_rate": 0.02, "decay": 0.9, "max_delta": 0.1, "max_norm": 0.1, "weight_decay": 0.1,
    "threshold": 0.1, "clipping": 0.1,
}  # fmt: skip


def in_common():
    """The transformations that both libraries have, at their defaults, by name."""
    tables = [section for section in SECTIONS if section.startswith("Optax")]
    left = " ".join("`" + left for section in tables for left, _ in rows(section))
    tabled = set(re.findall(r"`(?:contrib\.|chain\()?(\w+)\(", left))
    for module in (optax, optax.contrib):
        for name, theirs in vars(module).items():
            ours = getattr(gdtx, name, None) if inspect.isfunction(theirs) else None
            if ours is None or tabled & {name, name.removeprefix("scale_by_")}:
                continue
            arguments = {
                argument: GIVEN[argument]
                for factory in (theirs, ours)
                for argument, parameter in inspect.signature(factory).parameters.items()
                if parameter.default is parameter.empty and argument in GIVEN
            }
            try:
                made = theirs(**arguments)
            except (TypeError, ValueError):
                continue  # of arrays, schedules or other transformations
            if isinstance(made, optax.GradientTransformation):
                yield name, made, ours(**arguments)


def test_what_has_no_row_is_the_same(x64):
    theirs, mine = {}, {}
    for name, one, other in in_common():
        theirs[name], mine["ours " + name] = one, other
    assert len(theirs) > 25
    found, _ = paths(theirs | mine)
    worst = distances({n: found["ours " + n] for n in theirs}, {n: found[n] for n in theirs})
    assert {name: size for name, size in worst.items() if not size <= 1} == {}


def test_names_of_other_programs():
    for left, right in rows("Optax: other programs"):
        for name in re.findall(r"(?<![\w.])(\w+)\(", right):
            assert hasattr(gdtx, name), name
        for name in re.findall(r"(?<![\w.])(\w+)\(", left.replace("contrib.", "")):
            assert hasattr(optax, name) or hasattr(optax.contrib, name), name


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
        text = MOVING[MOVING.index(f"### {section}") :]
        assert {name for name in names if f"`{name}" not in text} == set()


def test_the_tables_of_the_readme_are_a_part():
    start, end = README.index("\n| Optax | gdtx |"), README.index("## Curvature")
    shown = [line for line in README[start:end].splitlines() if line.startswith("| ")]
    assert len(shown) > 20
    assert [line for line in shown[1:] if line not in MOVING and "torch | gdtx" not in line] == []
