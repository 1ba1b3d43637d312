"""The tables of docs/moving: all of them are run, and here those of Optax."""

import inspect
import operator
import re

import pytest
from moving import MOVING, SECTIONS, check, distances, evaluated, ours, paths, rows

import gdtx

optax = pytest.importorskip("optax", reason="Optax is installed by the extra 'test'")


def test_every_table_is_run():
    assert set(SECTIONS) == {
        "Optax: the same numbers", "Optax: other numbers", "Optax: other programs",
        "torch: the same numbers", "torch: other numbers", "torch: averaged weights",
        "torch: learning rates", "torch: momenta", "torch: what sees the loss",
        "Keras: the same numbers", "Keras: other numbers", "Keras: learning rates",
        "Keras: what sees the loss",
    }  # fmt: skip
    tables = sum(line.startswith("|---") for line in MOVING.splitlines())
    assert tables == len(SECTIONS) + 2  # of names that are missing, and of gdtx.interop


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


def test_what_is_said_to_be_missing_is():
    start = MOVING.index("## What gdtx does not have")
    lines = MOVING[start : MOVING.index("\n## ", start + 3)].splitlines()
    left, right = zip(*(line.split("|")[1:3] for line in lines if line[:2] == "| "), strict=True)
    theirs = set(re.findall(r"`(\w+)`", " ".join(left[1:]))) - {"contrib"}
    assert len(theirs) > 50
    assert theirs - set(dir(optax)) - set(dir(optax.contrib)) == set()
    assert {name for name in theirs if hasattr(gdtx, name)} == set()
    ours = re.findall(r"`gdtx\.([\w.]+)`", " ".join(right))
    assert len(ours) > 15
    for name in ours:
        operator.attrgetter(name)(gdtx)


def test_functions_of_optax_that_gdtx_does_not_have_are_on_the_page():
    """But for losses, which the page names by their module, and what has its row in a table."""
    missing = {
        name
        for name, value in vars(optax).items()
        if inspect.isfunction(value) and name in optax.__all__
        if not hasattr(gdtx, name) and not hasattr(optax.losses, name)
    }
    assert len(missing) > 30
    assert {name for name in missing if not re.search(rf"`{name}\b", MOVING)} == set()
