"""The benchmark of a large model counts what is known, and its smallest run prints it."""

import runpy
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from programs import refused
from test_sweep_benchmarks import FOLDER, printed, run

HLO = runpy.run_path(str(FOLDER / "hlo.py"))
GROUPS = {
    "replica_groups={{0,1,2,3},{4,5,6,7}}, x={1}": 4,
    "replica_groups=[4,2]<=[2,4]T(1,0), x={1}": 2,
    "replica_groups=mesh['a'=4,'b'=2] {'a'}, x={1}": 4,
    "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a','b'}, x={1}": 8,
    "replica_groups=mesh['a'=4,'b'=2] {'a':(1)2,'b'}, x={1}": 4,
    "replica_groups={}, x={1}": 16,
}


def test_bytes_and_operations_of_a_program_that_is_known():
    """On 8 devices: a sum in a loop of 3, 4 numbers from all in a branch, and 5 matrices there."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("x"), P()), out_specs=(P(), P(), P()),
             check_vma=False)  # fmt: skip
    def f(a, b, matrices):
        a, _ = jax.lax.scan(lambda a, _: (jax.lax.psum(a @ a, "x"), None), a, length=3)

        def rarely(b, matrices):
            return jax.lax.all_gather(b, "x"), jnp.linalg.eigh(matrices)[0]

        def mostly(b, matrices):
            return jnp.zeros((8, *b.shape)), jnp.zeros(matrices.shape[:-1])

        return a, *jax.lax.cond(b[0] > 0, rarely, mostly, b, matrices)

    text = f.lower(jnp.ones((6, 6)), jnp.ones(32), jnp.ones((5, 3, 3))).compile().as_text()
    always, sometimes = HLO["counts"](text, 8)
    assert always[HLO["PRODUCTS"]] == 3 * 2 * 6**3
    # Each device hands on what it has summed, and then what all have: seven eighths, twice.
    assert always["all-reduce"] == HLO["moved"](always) == 3 * round(2 * 7 / 8 * 36 * 4)
    assert not always[HLO["UNKNOWN"]]
    assert sometimes["all-gather"] == HLO["moved"](sometimes) == 7 * 4 * 4
    assert sometimes[HLO["DECOMPOSED"]] == 5


@pytest.mark.parametrize("text", GROUPS)
def test_the_size_of_groups_is_read_in_all_of_xlas_ways(text):
    line = f"%x = f32[7]{{0}} all-gather(%y), {text}, dimensions={{0}}"
    always, _ = HLO["counts"](f"ENTRY %main (y: f32[1]) -> f32[7] {{\n  {line}\n}}", 16)
    assert always["all-gather"] == round(28 * (1 - 1 / GROUPS[text]))


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["unrolled", "stacked"])
def test_smallest_run(layers):
    rows = ["adamw", "optax adamw", "muon, dealt"]
    arguments = ["--smoke", "--zero1", "--layers", layers, "--rows", *rows]
    lines = printed(run("scale.py", *arguments))
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    assert len({len(line) for line in lines[rule - 1 : rule + 1 + len(rows)]}) == 1
    state = [float(line[18:].split()[0]) for line in lines[rule + 1 : rule + 1 + len(rows)]]
    assert state[0] == state[1]
    assert [line[:18].strip() for line in lines[rule + 1 : rule + 1 + len(rows)]] == rows


def test_a_bad_argument_is_named():
    code, said = refused(FOLDER / "scale.py", "--rows", "adem")
    assert code == 2
    assert "invalid choice: 'adem'" in said


def test_rows_of_kfac_are_of_layers_by_themselves():
    code, said = refused(FOLDER / "scale.py", "--layers", "stacked", "--rows", "kfac, dealt")
    assert code == 2
    assert "the layers of K-FAC are those of a model" in said
