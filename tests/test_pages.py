"""The programs on pages of the site that are not notebooks run, here on eight simulated devices."""

import operator
import re
import runpy
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from test_sharding import on_mesh

import gdtx

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ["methods.md", "speed.md", "devices.md", "design.md"]
# What makes schedules of functions and of schedules; the page shows the operators.
OF_SCHEDULES = {"schedule", "clip_schedule", "merge_schedules", "shift_schedule"}


def programs(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["speed.md", "devices.md", "design.md"])
def test_programs_run(page, capsys):
    names = {"__name__": page}
    for program in programs(page):
        exec(program, names)
    printed = capsys.readouterr().out
    if page == "speed.md":
        assert printed.count("compiles") == 1
        assert "[(4,), (4, 4)]" in printed
        assert "0 bytes" not in printed
    if page == "devices.md":
        kernel = names["state"][0]["mu"][0].buffers["value"]["kernel"]
        assert kernel.sharding == names["cut_over_data"][0]["mu"][0].buffers["value"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (64 / 4, 32 / 2)
        whole = names["shardings"][0]["mu"][0].buffers["value"]["kernel"]
        assert whole == names["params"]["kernel"].sharding
        assert "P(None, 'model')" in printed.replace("PartitionSpec", "P")
    if page == "design.md":
        assert printed == programs(page)[0].splitlines()[-1].removeprefix("# ") + "\n"


def test_what_is_said_of_init_that_is_traced():
    tx = gdtx.adam(1e-3)
    for kind in (AxisType.Auto, AxisType.Explicit):
        with on_mesh(kind) as put:
            params = put({"w": jnp.ones((8, 4))})
            shape = gdtx.find(jax.eval_shape(tx.init, params), "mu")["w"]
            if kind == AxisType.Explicit:
                assert shape.sharding.spec == params["w"].sharding.spec
            else:
                assert shape.sharding is None
                inside = gdtx.find(jax.jit(tx.init)(params), "mu")["w"]
                assert inside.sharding.is_equivalent_to(params["w"].sharding, 2)


def test_buffers_are_copied_only_in_the_other_order():
    """What docs/speed.md says, and benchmarks/donation.py measures."""
    made = runpy.run_path(str(ROOT / "benchmarks" / "donation.py"))
    params = {"w": jnp.ones((8, 8))}
    state, copies = gdtx.adam(1e-3).init(params), {}
    for name in ("step", "step_turned"):
        program = jax.jit(made[name], donate_argnums=(0, 1)).lower(params, state, params).compile()
        copies[name] = program.as_text().count(" copy(")
    assert copies["step"] == 0
    assert copies["step_turned"] >= 3


def test_methods_links_schedules_and_wrappers_are_all_on_their_page():
    text = (DOCS / "methods.md").read_text()
    shown = set(re.findall(r"gdtx\.(\w+)[`>]", text))
    groups = gdtx.public
    for group in (groups.methods, groups.links, groups.matrices, groups.schedules, groups.wrappers):
        names = set(groups.contents.names(group))
        made = {name for name in names if name.islower()} - OF_SCHEDULES
        assert len(made) > 5
        assert made - shown == set(), group


def test_rooms_of_the_design_are_those_of_the_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [layer.split(" | ") for layer in contract["contracts"][0]["layers"]]
    text = (DOCS / "design.md").read_text()
    table = text[text.index("| rooms |") : text.index("The contract is in")]
    shown = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:] if row]
    assert shown == layers


@pytest.mark.parametrize("page", PAGES)
def test_files_that_pages_name_are_there(page):
    text = (DOCS / page).read_text()
    for file in re.findall(r"`((?:tests|benchmarks|docs|examples)/[\w/.]+\w)`", text):
        assert (ROOT / file).exists(), file
    for script in re.findall(r"^\| `(\w+\.py)`", text, re.MULTILINE):
        assert (ROOT / "benchmarks" / script).exists(), script
    for name in re.findall(r"{any}`(?:[^`<]*<)?gdtx\.([\w.]+)>?`", text):
        assert operator.attrgetter(name)(gdtx), name
