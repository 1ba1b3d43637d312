"""What a step of a state that is cut over the data axis moves, and that the benchmark prints it."""

import runpy

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_sweep_benchmarks import FOLDER, printed, run

import gdtx

HLO = runpy.run_path(str(FOLDER / "hlo.py"))


def test_rows_and_columns_are_brought_together_and_no_updates():
    """They are a fraction of the parameters, and whole on each device these can update all."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    where = {"w": NamedSharding(mesh, P(None, "model"))}
    params = {"w": jax.ShapeDtypeStruct((256, 512), jnp.float32, sharding=where["w"])}
    tx = gdtx.scale_by_factored_rms()
    shardings = gdtx.state_sharding(tx, gdtx.zero1(params, "data"))
    state = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(tx.init, params),
        shardings,
    )
    assert all("data" in str(x.sharding.spec) for x in jax.tree.leaves(state) if x.ndim)
    step = jax.jit(lambda u, state: tx.update(u, state), out_shardings=(where, shardings))
    always, _ = HLO["counts"](step.lower(params, state).compile().as_text(), 8)
    assert always[HLO["NUMBER"]]
    assert HLO["moved"](always) <= 3 * 4 * (256 + 512)


@pytest.mark.slow
def test_the_table_of_the_benchmark():
    lines = printed(run("zero1.py", "--smoke"))
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    header, rows = lines[rule - 1], lines[rule + 1 :]
    assert {len(line) for line in (header, *rows)} == {len(lines[rule])}
    found = {row[:26].strip(): row[26:].split() for row in rows}
    assert {"adafactor", "optax adafactor", "adamw", "optax adamw", "shampoo"} == found.keys()
    assert found["adamw"] == found["optax adamw"]
    for name in ("adafactor", "adamw", "shampoo"):
        state, cut, bound = map(float, (x.replace(",", "") for x in found[name][:3]))
        assert bound == cut < state
