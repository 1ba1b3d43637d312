"""gdtx against PyTorch, Keras and Optax themselves, in float64, where their rules are the same.

A row names our method and its settings, and theirs. Both see the same 100 gradients, and every
position is compared, relative to its own magnitude. Without weight decay the parameters are put
back to zero before each step, so that a position *is* an update and no digit of a small one is
lost in a large parameter. With weight decay, even of 0, the parameters run freely: ratios to their
norms would all be 1 at zero.
"""

import functools
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdtx

LEARNING_RATE = 0.1
STEPS = 100
SHAPES = {"scalar": (), "vector": (7,), "matrix": (4, 3)}

NESTEROV = {"momentum": 0.9, "nesterov": True}
FLOAT32_DECAY = "they compute the decay in float32: of one minus it, 0.025, 5 digits are right"
FLOAT32_MEAN = "they take means in float32"
NAIVE_RHO = "they subtract numbers near 2 / (1 - b2) to get a rho_t near 5"


class Row(NamedTuple):
    method: str
    settings: dict
    theirs: str
    their_settings: dict
    rtol: float = 1e-12
    because: str = ""

    @property
    def restart(self):
        """Whether the parameters are put back to zero before each step."""
        return not (self.method.endswith("w") or "weight_decay" in self.settings)


TORCH = [
    Row("sgd", {}, "SGD", {}),
    Row("sgd", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    Row("sgd", NESTEROV, "SGD", NESTEROV),
    # Outside the root, where their eps is, only zero is the same as inside.
    Row("adagrad", {"initial_accumulator_value": 0.0, "eps": 0.0}, "Adagrad", {"eps": 0.0}),
    Row("adagrad", {"eps": 0.0}, "Adagrad", {"initial_accumulator_value": 0.1, "eps": 0.0}),
    Row("adadelta", {}, "Adadelta", {}),
    Row("adadelta", {"rho": 0.95, "eps": 1e-8}, "Adadelta", {"rho": 0.95, "eps": 1e-8}),
    Row("adadelta", {"weight_decay": 0.1}, "Adadelta", {"weight_decay": 0.1}),
    Row("rmsprop", {"eps_in_sqrt": False}, "RMSprop", {"alpha": 0.9}),
    Row("rmsprop", {"eps_in_sqrt": False, "momentum": 0.9},
        "RMSprop", {"alpha": 0.9, "momentum": 0.9}),
    Row("rmsprop", {"eps_in_sqrt": False, "centered": True},
        "RMSprop", {"alpha": 0.9, "centered": True}),
    Row("rmsprop", {"eps_in_sqrt": False, "centered": True, "momentum": 0.9},
        "RMSprop", {"alpha": 0.9, "centered": True, "momentum": 0.9}),
    Row("rprop", {}, "Rprop", {}),
    Row("rprop", {"eta_minus": 0.3, "eta_plus": 1.5, "min_step_size": 1e-3, "max_step_size": 1.0},
        "Rprop", {"etas": (0.3, 1.5), "step_sizes": (1e-3, 1.0)}),
    Row("adam", {}, "Adam", {}),
    Row("adam", {"b1": 0.5, "b2": 0.9, "eps": 1e-3}, "Adam", {"betas": (0.5, 0.9), "eps": 1e-3}),
    Row("adamw", {"weight_decay": 1e-2}, "AdamW", {}),
    Row("adamax", {}, "Adamax", {}),
    Row("nadam", {"momentum_decay": 0.004}, "NAdam", {}),
    Row("nadamw", {"momentum_decay": 0.004, "weight_decay": 1e-2},
        "NAdam", {"decoupled_weight_decay": True, "weight_decay": 1e-2}),
    Row("amsgrad", {}, "Adam", {"amsgrad": True}),
    # Their eps is added before the bias is corrected, so only zero is the same.
    Row("radam", {"eps": 0.0, "threshold": 5.0}, "RAdam", {"eps": 0.0}, 1e-11, NAIVE_RHO),
    # Their eps is a bound and not added, so only zero is the same. Their rate is at most
    # 1 / sqrt(t), which in 100 steps is no less than the one given, and multiplies the decay.
    Row("adafactor", {"eps": 0.0, "min_dim_size_to_factor": 1}, "Adafactor", {"eps": (0.0, 1e-3)}),
    Row("adafactor", {"eps": 0.0, "min_dim_size_to_factor": 1, "weight_decay": 1e-2},
        "Adafactor", {"eps": (0.0, 1e-3), "weight_decay": 0.1}),
]  # fmt: skip

KERAS = [
    Row("sgd", {}, "SGD", {}),
    Row("sgd", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    Row("sgd", NESTEROV, "SGD", NESTEROV),
    Row("adagrad", {}, "Adagrad", {}),
    Row("adadelta", {"rho": 0.95, "eps": 1e-7}, "Adadelta", {}),
    Row("rmsprop", {"eps": 1e-7}, "RMSprop", {}),
    Row("rmsprop", {"eps": 1e-7, "momentum": 0.9}, "RMSprop", {"momentum": 0.9}),
    Row("rmsprop", {"eps": 1e-7, "centered": True}, "RMSprop", {"centered": True}),
    # The eps of their Adam is added before the bias is corrected and that of their Adamax after
    # the maximum, so only zero is the same.
    Row("adam", {"eps": 0.0}, "Adam", {"epsilon": 0.0}),
    Row("adamw", {"eps": 0.0, "weight_decay": 4e-3}, "AdamW", {"epsilon": 0.0}),
    Row("amsgrad", {"eps": 0.0}, "Adam", {"epsilon": 0.0, "amsgrad": True}),
    Row("adamax", {"eps": 0.0}, "Adamax", {"epsilon": 0.0}),
    Row("nadam", {"eps": 1e-7, "momentum_decay": 1.0}, "Nadam", {}),
    Row("lion", {"weight_decay": 0.0}, "Lion", {}),
    Row("adafactor", {"min_dim_size_to_factor": 1}, "Adafactor", {}, 5e-7, FLOAT32_MEAN),
    # Their decay is decoupled from the ratio, so only none is the same.
    Row("lamb", {"weight_decay": 0.0}, "Lamb", {"epsilon": 1e-6}),
]

# Not Optax's rprop, whose update is one step stale, nor its amsgrad, whose maximum is taken after
# the bias is corrected.
OPTAX = [
    Row(method, settings, method, settings, *loosened)
    for method, settings, *loosened in [
        ("sgd", {}),
        ("sgd", {"momentum": 0.9}),
        ("sgd", NESTEROV),
        ("adagrad", {}),
        ("adagrad", {"initial_accumulator_value": 0.0}),
        ("adadelta", {}),
        ("adadelta", {"weight_decay": 0.1}),
        ("rmsprop", {}),
        ("rmsprop", {"initial_scale": 1.0, "eps_in_sqrt": False}),
        ("rmsprop", NESTEROV),
        ("rmsprop", {"centered": True}),
        ("rmsprop", {"centered": True, "initial_scale": 1.0, "momentum": 0.9}),
        ("adam", {}),
        ("adam", {"b1": 0.5, "b2": 0.9, "eps_root": 1e-6}),
        ("adamw", {}),
        ("adamax", {}),
        ("nadam", {}),
        ("nadamw", {}),
        # They rectify at rho_t >= 5, which no rho_t equals.
        ("radam", {"threshold": 5.0}, 1e-11, NAIVE_RHO),
        ("radam", {"b2": 0.9, "threshold": 5.0}),
        ("lion", {}),
        ("lion", {"b1": 0.5, "b2": 0.9, "weight_decay": 0.1}),
        ("signum", {}),
        ("adabelief", {}),
        ("adabelief", {"b1": 0.5, "b2": 0.9, "eps": 1e-6, "eps_root": 1e-8}),
        # With decay the norm in their denominator is of the sum: see test_layerwise.
        ("lars", {"weight_decay": 0.0}),
        ("lars", {"weight_decay": 0.0, "trust_coefficient": 0.1, "eps": 1e-2, **NESTEROV}),
        ("lamb", {"weight_decay": 0.0}),
        ("lamb", {"weight_decay": 0.1, "b1": 0.5, "b2": 0.9, "eps_root": 1e-6}),
    ]
] + [
    # Their first moment starts where the second does.
    Row("yogi", {"initial_mean": 1e-6}, "yogi", {}),
    # The paper continues the gradient by b2, which it calls 1 - b2, and they by 1 - b2.
    Row("adan", {"ahead": 1 - 0.92, "eps_root": 1e-8}, "adan", {}),
    Row("adan", {"ahead": 1 - 0.92, "eps_root": 1e-8, "weight_decay": 0.1, "proximal": False},
        "adan", {"weight_decay": 0.1}),
    Row("adafactor", {"min_dim_size_to_factor": 1}, "adafactor", {"min_dim_size_to_factor": 1},
        2e-6, FLOAT32_DECAY),
    # Not with momentum: what positive and negative steps cancel to has even fewer digits.
    Row("adafactor", {"clipping_threshold": 0.5, "decay_rate": 0.5}, "adafactor",
        {"clipping_threshold": 0.5, "decay_rate": 0.5}, 2e-6, FLOAT32_DECAY),
    Row("ademamix", {"b3": 0.99}, "contrib.ademamix", {"b3": 0.99}),
    Row("ademamix", {"alpha": 8.0, "weight_decay": 0.1}, "contrib.ademamix",
        {"alpha": 8.0, "weight_decay": 0.1}),
    Row("adopt", {}, "contrib.adopt", {}),
    Row("novograd", {"weight_decay": 0.1}, "novograd", {"weight_decay": 0.1}),
    Row("novograd", {"b1": 0.5, "b2": 0.9, "eps_root": 1e-6, "weight_decay": 0.0}, "novograd",
        {"b1": 0.5, "b2": 0.9, "eps_root": 1e-6, "weight_decay": 0.0}),
    Row("adopt", {"use_clipping": False, "b2": 0.99}, "contrib.adopt",
        {"use_clipping": False, "b2": 0.99}),
    Row("dog", {"reps_rel": 1e-3, "weight_decay": 0.0}, "contrib.dog",
        {"init_step": ("heuristic", 1e-3), "weight_decay": 0.0}),
    Row("dog", {"weight_decay": 0.1}, "contrib.dog", {"weight_decay": 0.1}),
    # Their eps is multiplied by the new estimate, so only zero is the same.
    Row("prodigy", {"eps": 0.0, "weight_decay": 0.1}, "contrib.prodigy",
        {"eps": 0.0, "weight_decay": 0.1}),
    Row("prodigy", {"eps": 0.0, "safeguard_warmup": True, "weight_decay": 0.0}, "contrib.prodigy",
        {"eps": 0.0, "safeguard_warmup": True, "weight_decay": 0.0}),
]  # fmt: skip


def torch_path(row):
    torch = pytest.importorskip("torch", reason="PyTorch is installed by the extra 'peers'")
    gradients, theta = problem()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        params = {k: torch.tensor(v, requires_grad=True) for k, v in theta.items()}
        optimizer = getattr(torch.optim, row.theirs)(
            params.values(), lr=LEARNING_RATE, **row.their_settings
        )
        path = []
        for step in gradients:
            for key, p in params.items():
                p.grad = torch.tensor(step[key])
                if row.restart:
                    p.data.zero_()
            optimizer.step()
            path.append({k: p.detach().numpy().copy() for k, p in params.items()})
        return {key: np.array([step[key] for step in path]) for key in SHAPES}
    finally:
        torch.set_default_dtype(default)


def keras_path(row):
    keras = pytest.importorskip("keras", reason="Keras is installed by the extra 'peers'")
    gradients, theta = problem()
    default = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        params = {k: keras.Variable(v, dtype="float64") for k, v in theta.items()}
        optimizer = getattr(keras.optimizers, row.theirs)(LEARNING_RATE, **row.their_settings)
        path = []
        for step in gradients:
            if row.restart:
                for p in params.values():
                    p.assign(jnp.zeros(p.shape))
            optimizer.apply([jnp.asarray(step[k]) for k in params], list(params.values()))
            path.append({k: np.array(p.value) for k, p in params.items()})
        return {key: np.array([step[key] for step in path]) for key in SHAPES}
    finally:
        keras.config.set_floatx(default)


def gdtx_paths(rows, theirs=None):
    """Parameters after each step of each row, from one program; also of Optax, if it is given."""
    made = [
        (attrgetter(name)(module)(LEARNING_RATE, **settings), row.restart)
        for row in rows
        for module, name, settings in (
            (gdtx, row.method, row.settings), (theirs, row.theirs, row.their_settings)
        )
        if module is not None
    ]  # fmt: skip
    gradients, theta = problem()

    def run(transformation, restart, theta, gradients):
        def step(carry, g):
            params, state = carry
            old = jax.tree.map(jnp.zeros_like, params) if restart else params
            updates, state = transformation.update(g, state, old)
            params = jax.tree.map(jnp.add, old, updates)
            return (params, state), params

        return jax.lax.scan(step, (theta, transformation.init(theta)), gradients)[1]

    def run_all(theta, gradients):
        return [run(*each, theta, gradients) for each in made]

    stacked = {key: np.stack([step[key] for step in gradients]) for key in SHAPES}
    return jax.tree.map(np.asarray, jax.jit(run_all)(theta, stacked))


@functools.cache
def both(peer):
    """Ours of each row of a table, and theirs."""
    path, rows = PEERS[peer]
    if path:
        return gdtx_paths(rows), lambda i: path(rows[i])
    optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")
    found = gdtx_paths(rows, optax)
    return found[::2], found[1::2].__getitem__


PEERS = {"torch": (torch_path, TORCH), "keras": (keras_path, KERAS), "optax": (None, OPTAX)}
CASES = [
    pytest.param(
        peer, i, id=" ".join([peer, row.method, *(f"{k}={v}" for k, v in row.settings.items())])
    )
    for peer, (_, rows) in PEERS.items()
    for i, row in enumerate(rows)
]


@functools.cache
def problem():
    """Gradients over 16 decades, within a weight and between weights, more of them positive.

    Rounding in another order shows where a sum of both signs passes near zero. So the weights start
    too far from zero to cross it, and the seed is one whose momenta stay clear of it.
    """
    rng = np.random.default_rng(8)
    scale = {k: 10 ** rng.uniform(-4, 4, shape) for k, shape in SHAPES.items()}

    def gradient(shape, scale):
        return np.asarray((rng.normal(size=shape) + 0.7) * 10 ** rng.uniform(-4, 4, shape) * scale)

    gradients = [{k: gradient(SHAPES[k], scale[k]) for k in SHAPES} for _ in range(STEPS)]
    return gradients, {k: np.asarray(rng.uniform(20, 40, shape)) for k, shape in SHAPES.items()}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("peer", "i"), CASES)
def test_same_trajectory(peer, i):
    row, (ours, theirs) = PEERS[peer][1][i], both(peer)
    path = theirs(i)
    for key in SHAPES:
        expected = path[key]
        # Steps of LAMB, a tenth of the weights, take some past zero: what is left there keeps the
        # roundings of what it was.
        rounding = 0 if row.restart else 4 * np.finfo(float).eps * np.max(np.abs(expected))
        np.testing.assert_allclose(
            ours[i][key],
            expected,
            rtol=row.rtol,
            atol=rounding,
            err_msg=f"{key} {row.because}",
        )
