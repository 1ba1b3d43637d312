"""One process of a training over several, with checkpoints; `test_many_processes.py` runs it.

Every method has parameters of its own, cut over both axes of the mesh. Gradients are those of a
quadratic whose target changes with the step, or, for K-FAC, of a network; a step is a function of
its number and of what a checkpoint holds.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gdtx
from gdtx import kfac

SPECS = {
    "hidden": {"w": P("data", "model"), "b": P("model")},
    "out": {"w": P("model", "data"), "b": P()},
}
SHAPES = {"hidden": {"w": (16, 32), "b": (32,)}, "out": {"w": (32, 8), "b": (8,)}}
EXAMPLES = 16

MATRICES = {"hidden": {"w": True, "b": False}, "out": {"w": True, "b": False}}
METHODS = {
    "adamw": gdtx.adamw(gdtx.cosine_decay_schedule(0.01, 100)),
    "adafactor": gdtx.chain(gdtx.clip_by_global_norm(1.0), gdtx.adafactor(0.01, 4)),
    "shampoo": gdtx.shampoo(0.01, eps=0.01, blocks=gdtx.Blocks(8), graft=gdtx.scale_by_adam()),
    "muon": gdtx.muon(0.01, MATRICES, others=gdtx.adamw(0.01)),
    "kfac": kfac.kfac(0.3, damping=0.1),
}


def place(mesh, shape, spec, seed):
    """Normal numbers on the mesh; every process makes what is on its devices."""
    whole = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return jax.make_array_from_callback(shape, NamedSharding(mesh, spec), lambda at: whole[at])


def tree(mesh, seed):
    """Arrays like the parameters."""
    return {
        layer: {k: place(mesh, shape, SPECS[layer][k], seed) for k, shape in shapes.items()}
        for layer, shapes in SHAPES.items()
    }


def model(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"][None])
    return hidden @ params["out"]["w"] + params["out"]["b"][None]


def step(tx, params_and_state, given):
    """One update by the gradient of half the squared distance to a target, or of the model."""
    params, state = params_and_state
    if "target" in given:
        grads, extras = jax.tree.map(jnp.subtract, params, given["target"]), {}
    else:
        f = kfac.value_grad_and_curvature(model, kfac.squared_error, gradient=True)
        _, grads, curvature = f(params, (given["x"], given["y"]), given["key"])
        extras = {"curvature": curvature}
    updates, state = tx.update(grads, state, params, **extras)
    return (gdtx.apply_updates(params, updates), state), updates


def given(mesh, method, number):
    """What a step is given."""
    if method != "kfac":
        return {"target": tree(mesh, (1, number))}
    return {
        "x": place(mesh, (EXAMPLES, 16), P("data"), (2, number)),
        "y": place(mesh, (EXAMPLES, 8), P("data"), (3, number)),
        "key": jax.random.key(number),
    }


def read_outside_of_jit(tx, params, state, updates, number):
    """What is read of a training, of arrays of which a process has a part."""
    facts = gdtx.describe(tx, state, updates, params)
    assert facts.get("step", number) == number, facts
    assert all(np.isfinite(value) for value in facts.values()), facts
    kept = jax.tree.leaves(state)
    table = gdtx.state_table(tx, params)
    assert len(table.rows) == len(kept)
    for row, x in zip(table.rows, kept, strict=True):
        assert row.sharding.is_equivalent_to(x.sharding, x.ndim), (row, x.sharding)
        assert row.device_bytes == x.addressable_shards[0].data.nbytes, row
    found = gdtx.find(state, table.rows[0].buffer)
    assert any(x is kept[0] for x in jax.tree.leaves(found))
    assert "on each device" in repr(table)
    return facts["update_norm"]


def compiled(tx, params, state):
    """The step, whose state stays where it is made and where `state_sharding` says."""
    where = (jax.tree.map(lambda x: x.sharding, params), gdtx.state_sharding(tx, params))
    same = jax.tree.map(
        lambda x, expected: x.sharding.is_equivalent_to(expected, x.ndim), (params, state), where
    )
    assert jax.tree.all(same), same
    return jax.jit(functools.partial(step, tx), donate_argnums=0, out_shardings=(where, None))


def train(mesh, methods, steps, every, directory):
    """The parameters of the end, by method."""
    trained = {}
    for name in methods:
        params = tree(mesh, 0)
        trained[name] = (params, METHODS[name].init(params))
    step_of = {name: compiled(METHODS[name], *trained[name]) for name in methods}
    settings = ocp.CheckpointManagerOptions(save_interval_steps=every)
    with ocp.CheckpointManager(directory, options=settings) as manager:
        first = manager.latest_step() or 0
        if first:
            like = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trained
            )
            trained = manager.restore(first, args=ocp.args.StandardRestore(like))
        print("from", first, flush=True)
        for number in range(first, steps):
            norms = []
            for name in methods:
                before = tuple(trained[name])
                trained[name], updates = step_of[name](before, given(mesh, name, number))
                facts = (*trained[name], updates, number + 1)
                norms.append(read_outside_of_jit(METHODS[name], *facts))
            print("step", number + 1, *norms, flush=True)
            manager.save(number + 1, args=ocp.args.StandardSave(trained))
    return {name: params for name, (params, _) in trained.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--port", type=int, default=0, help="of the first process")
    parser.add_argument("--mesh", type=int, nargs=2, required=True, help="data and model")
    parser.add_argument("--methods", nargs="+", choices=METHODS, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True, help="steps between two checkpoints")
    parser.add_argument("--directory", type=Path, required=True, help="for the checkpoints")
    parser.add_argument("--out", type=Path, help="for the parameters of the end")
    options = parser.parse_args()
    data, columns = options.mesh
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", data * columns // options.processes)
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address = f"127.0.0.1:{options.port}"
        jax.distributed.initialize(address, options.processes, options.process)
    mesh = jax.make_mesh((data, columns), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params = train(mesh, options.methods, options.steps, options.every, options.directory)
    everywhere = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    params = jax.jit(lambda tree: tree, out_shardings=everywhere)(params)
    if options.out and options.process == 0:
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        np.savez(options.out, **{jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves})
    print("done", flush=True)


if __name__ == "__main__":
    main()
