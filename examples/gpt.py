"""A small language model on a mesh of devices, with what gdtx has for that.

    python examples/gpt.py --mesh data=4,model=2 --directory /tmp/gpt
    python examples/gpt.py --mesh data=4,model=2 --directory /tmp/gpt    # goes on
    python examples/gpt.py --compare --out gpt.png    # four methods, each at its best rate

It predicts the next byte of Python's manual. Parameters are bfloat16 and lie on the mesh, cut over
"model"; the state is cut over "data" as well (ZeRO-1). Its layers are stacked in one array each, as
`jax.lax.scan` takes them, and trained as the layers they are. Without accelerators the mesh is of
simulated devices.
"""

import argparse
import functools
import math
import os
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any


def mesh_sizes(text: str) -> dict[str, int]:
    """`data=4,model=2` as a dict."""
    sizes = dict(part.split("=") for part in text.split(",") if part.count("=") == 1)
    if sorted(sizes) != ["data", "model"] or not all(size.isdigit() for size in sizes.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not as in data=8,model=1")
    return {name: int(size) for name, size in sizes.items()}


parser = argparse.ArgumentParser(description="A small language model on a mesh of devices.")
parser.add_argument("--mesh", type=mesh_sizes, default={"data": 4, "model": 2})
parser.add_argument("--method", choices=["adamw", "muon", "soap", "shampoo"], default="muon")
parser.add_argument(
    "--rate", type=float, help="learning rate; by default the middle one of --compare"
)
parser.add_argument("--steps", type=int, default=400, help="updates")
parser.add_argument("--directory", type=Path, help="for checkpoints, from which it goes on")
parser.add_argument("--compare", action="store_true", help="all methods, a small sweep of each")
parser.add_argument("--out", type=Path, default=Path("gpt.png"), help="the picture of --compare")
parser.add_argument("--smoke", action="store_true", help="four updates of a smaller model")
options = parser.parse_args()

# Before jax is imported. Where there are accelerators it changes nothing.
devices = math.prod(options.mesh.values())
flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import orbax.checkpoint as ocp  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
from tqdm import trange  # noqa: E402

import gdtx  # noqa: E402

LAYERS, WIDTH, HEADS, LENGTH = (2, 32, 2, 16) if options.smoke else (4, 128, 4, 64)
BATCH = 32  # of each of the gradients of which an update takes the mean
ACCUMULATED = 2
STEPS = 4 if options.smoke else options.steps
RATES = {"adamw": (2e-3, 4e-3, 8e-3), "muon": (2e-2, 4e-2, 8e-2),
         "soap": (4e-3, 8e-3, 1.6e-2), "shampoo": (2e-3, 4e-3, 8e-3)}  # fmt: skip

text = np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8)
split = len(text) * 9 // 10
mesh = jax.make_mesh(
    tuple(options.mesh.values()),
    tuple(options.mesh),
    axis_types=(AxisType.Auto,) * len(options.mesh),
)


# The model


def init_params(seed: int) -> Any:
    """Weights; those of the layers have a first axis that counts them."""
    rng = np.random.default_rng(seed)

    def kernel(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) * shape[-2] ** -0.5, jnp.bfloat16)

    def scale(*shape: int) -> jax.Array:
        return jnp.ones(shape, jnp.bfloat16)

    return {
        "embedding": kernel(256, WIDTH),
        "places": kernel(LENGTH, WIDTH),
        "layers": {
            "attention": {"norm": scale(LAYERS, WIDTH), "qkv": kernel(LAYERS, WIDTH, 3 * WIDTH),
                          "out": kernel(LAYERS, WIDTH, WIDTH)},
            "mlp": {"norm": scale(LAYERS, WIDTH), "up": kernel(LAYERS, WIDTH, 4 * WIDTH),
                    "down": kernel(LAYERS, 4 * WIDTH, WIDTH)},
        },
        "norm": scale(WIDTH),
        "head": kernel(WIDTH, 256),
    }  # fmt: skip


def spec(path: Any, x: Any) -> P:
    """Which axes of an array are cut over which axis of the mesh."""
    name = path[-1].key
    if name in ("qkv", "up", "head"):
        return P(*[None] * (x.ndim - 1), "model")
    return P(None, "model") if name in ("out", "down") else P()


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """`x` with a mean square of 1, scaled."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + 1e-6)).astype(
        x.dtype
    ) * scale


def attention(p: Any, x: jax.Array) -> jax.Array:
    """Of each place to those before it."""
    q, k, v = jnp.split(rms_norm(x, p["norm"]) @ p["qkv"], 3, axis=-1)
    heads = [each.reshape(*each.shape[:2], HEADS, -1) for each in (q, k, v)]
    mixed = jax.nn.dot_product_attention(*heads, is_causal=True)
    return mixed.reshape(x.shape) @ p["out"]


def mlp(p: Any, x: jax.Array) -> jax.Array:
    """Two dense layers."""
    return jax.nn.gelu(rms_norm(x, p["norm"]) @ p["up"]) @ p["down"]


def loss(params: Any, rows: jax.Array) -> jax.Array:
    """Minus the mean logarithm of the probability of the next byte."""
    x = params["embedding"][rows[:, :-1]] + params["places"]

    def layer(x: jax.Array, p: Any) -> tuple[jax.Array, None]:
        x = x + attention(p["attention"], x)
        return x + mlp(p["mlp"], x), None

    x, _ = jax.lax.scan(layer, x, params["layers"])
    logits = (rms_norm(x, params["norm"]) @ params["head"]).astype(jnp.float32)
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, rows[:, 1:, None], axis=-1).mean()


def batch(number: int) -> np.ndarray:
    """The text that the gradient of this number is of; held-out text for -1."""
    rng = np.random.default_rng(number + 1)
    low, high = (split, len(text)) if number < 0 else (0, split)
    starts = rng.integers(low, high - LENGTH, 256 if number < 0 else BATCH)
    return text[starts[:, None] + np.arange(LENGTH + 1)].astype(np.int32)


# The optimizer


def make_tx(method: str, rate: float) -> gdtx.GradientTransformation:
    """A method for the matrices of the hidden layers, and AdamW for the rest."""
    hidden = ["layers/**/qkv", "layers/**/out", "layers/**/up", "layers/**/down"]

    def schedule(peak: float) -> Any:
        return gdtx.warmup_cosine_decay_schedule(0.0, peak, max(STEPS // 10, 1), STEPS)

    adamw = gdtx.adamw(schedule(RATES["adamw"][1]), weight_decay=0.1, mask=["**/embedding", "head"])
    blocks = gdtx.Blocks(256)
    of_matrices = {
        "adamw": gdtx.adamw(schedule(rate), weight_decay=0.1),
        "muon": gdtx.muon(schedule(rate), True, weight_decay=0.1),
        "soap": gdtx.soap(schedule(rate), weight_decay=0.1, blocks=blocks),
        "shampoo": gdtx.shampoo(schedule(rate), weight_decay=0.1, blocks=blocks,
                                graft=gdtx.scale_by_adam()),
    }  # fmt: skip
    labels = [*((pattern, "hidden") for pattern in hidden), ("**", "rest")]
    tx = gdtx.partition({"hidden": of_matrices[method], "rest": adamw}, labels)
    tx = gdtx.chain(gdtx.clip_by_global_norm(1.0), tx)
    # Each layer is an array of its own, and each device works on matrices of its own.
    tx = gdtx.dealt(gdtx.stacked(tx, [("layers/**", 1)]), tuple(options.mesh), mesh)
    return gdtx.accumulate_gradients(gdtx.master_weights(tx), ACCUMULATED)


def train(method: str, rate: float, directory: Path | None = None) -> list[float]:
    """The losses of a training, which goes on from the last checkpoint in the directory."""
    tx = make_tx(method, rate)
    where = jax.tree_util.tree_map_with_path(
        lambda path, x: NamedSharding(mesh, spec(path, x)), init_params(0)
    )
    params = jax.device_put(init_params(0), where)
    # ZeRO-1: of what the state keeps, each device keeps its share.
    shares = gdtx.state_sharding(tx, gdtx.zero1(params, "data"))
    state = jax.jit(tx.init, out_shardings=shares)(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(where, shares, None))
    def step(params: Any, state: Any, rows: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, rows)
        updates, state = tx.update(grads, state, params)
        return gdtx.apply_updates(params, updates), state, value

    manager, first, losses = None, 0, []
    saved = {"params": params, "state": state}
    if directory is not None:
        interval = 5 if options.smoke else 50
        every = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=interval)
        manager = ocp.CheckpointManager(directory.absolute(), options=every)
        first = manager.latest_step() or 0
        if first:
            # Everything returns to the devices where it belongs.
            saved = manager.restore(first, args=ocp.args.StandardRestore(saved))
            print(f"going on from step {first}", flush=True)
    for number in trange(first, STEPS * ACCUMULATED, desc=f"{method} {rate:g}", unit="gradient"):
        rows = jax.device_put(batch(number), NamedSharding(mesh, P("data")))
        params, state, value = step(saved["params"], saved["state"], rows)
        saved = {"params": params, "state": state}
        losses.append(float(value))
        if manager is not None:
            is_last = number + 1 == STEPS * ACCUMULATED
            manager.save(number + 1, args=ocp.args.StandardSave(saved), force=is_last)
    if manager is not None:
        manager.close()
    held_out = float(jax.jit(loss)(saved["params"], batch(-1)))
    on_device = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(saved["state"]))
    print(f"{method} {rate:g}: {held_out:.3f} on held-out text, state {on_device:,} bytes a device")
    return [*losses, held_out]


def compare(out: Path) -> None:
    """Every method at the best of its rates, in a picture."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for method, rates in RATES.items():
        runs = {rate: train(method, rate) for rate in (rates[:1] if options.smoke else rates)}
        best = min(runs, key=lambda rate: runs[rate][-1])
        *losses, held_out = runs[best]
        width = min(20, len(losses))
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        updates = np.arange(len(smooth)) / ACCUMULATED
        axes.plot(updates, smooth, label=f"{method}, rate {best:g}: {held_out:.2f}")
    axes.set(
        xlabel="updates", ylabel="loss, mean of 20 gradients", title="Next byte of Python's manual"
    )
    axes.legend(title="held-out loss")
    figure.savefig(out, dpi=120)
    print(f"written to {out}")


if __name__ == "__main__":
    if options.compare:
        compare(options.out)
    else:
        train(options.method, options.rate or RATES[options.method][1], options.directory)
