"""What `digits.py` prints and draws of its training runs."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gdtx


class Run(NamedTuple):
    """What is left of one training run."""

    label: str
    losses: np.ndarray  # of every step
    accuracies: list[float]  # on the test images, some steps apart
    seconds_per_step: float
    state_bytes: float  # of every parameter


def label(tx: Any) -> str:
    """The call that makes `tx`, without what is as by default; numbers but the rate by name."""
    parameters = inspect.signature(tx.factory).parameters
    shown = []
    for name, value in tx.arguments.items():
        if value != parameters[name].default:
            text = label(value) if isinstance(value, gdtx.GradientTransformation) else f"{value}"
            named = isinstance(value, int | float) and name != "learning_rate"
            shown.append(f"{name}={text}" if named else text)
    return f"{tx.factory.__name__}({', '.join(shown)})"


def table(runs: list[Run]) -> str:
    """The runs as text, a line each."""
    width = max(len(run.label) for run in runs)
    header = f"{'method':{width}}  test accuracy  steps to 95 %  time/step  state B/param"
    lines = [header, "-" * len(header)]
    for run in runs:
        every = len(run.losses) // len(run.accuracies)
        reached = [every * i for i, value in enumerate(run.accuracies, 1) if value >= 0.95]
        lines.append(
            f"{run.label:{width}}  {100 * run.accuracies[-1]:11.1f} %  {(reached or ['-'])[0]:>13}"
            f"  {1e3 * run.seconds_per_step:6.2f} ms  {run.state_bytes:13.2f}"
        )
    return "\n".join(lines)


def smooth(losses: np.ndarray) -> np.ndarray:
    """The running mean of the losses: links are of use outside of methods too."""
    mean = gdtx.chain(gdtx.ema(0.95), gdtx.bias_correction(0.95))
    state = mean.init(jnp.float32(0))
    return np.asarray(jax.lax.scan(lambda s, x: mean.update(x, s)[::-1], state, losses)[1])


def draw(families: dict[str, list[Run]], path: Path) -> None:
    """One panel for each family, the runs of all the others in grey."""
    curves = {run.label: smooth(run.losses) for runs in families.values() for run in runs}
    plt.style.use("gdtx.explore.gdtx")
    columns = min(2, len(families))
    rows = -(-len(families) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.5 * columns, 3 * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax, (family, runs) in zip(axes.flat, families.items(), strict=False):
        for curve in curves.values():
            ax.plot(curve, color="0.88", linestyle="-", linewidth=0.8, zorder=1)
        for run in runs:
            ax.plot(curves[run.label], label=run.label)
        ax.set(yscale="log", ylim=(1e-4, 100), title=family, xlim=(0, None))
        ax.legend(loc="upper right")
    for ax in axes.flat[len(families) :]:
        ax.set_axis_off()
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("training loss (running mean)", fontsize=10)
    figure.savefig(path)
