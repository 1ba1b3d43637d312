"""What `gdtx` shows: names in groups, states and kinds in their places, pickles that name these."""

import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import jax
import pytest
from everything import EVERY, PARAMS

import gdtx
from gdtx import explore, interop, kfac, kinds, public, sharding, states

MODULES = (explore, interop, kfac, kinds, sharding, states)
ROOT = Path(gdtx.__file__).parents[1]


def names(module):
    return [name for name in vars(module) if not name.startswith("_")]


def own(module):
    """The public functions and classes of a module by path."""
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for name in (module.__all__ if module is gdtx else names(module))
        if getattr(getattr(module, name), "__name__", None) == name
        and not isinstance(getattr(module, name), ModuleType)
    }


def test_every_public_name_is_in_one_group():
    grouped = [name for group in public.GROUPS for name in names(group)]
    assert len(set(grouped)) == len(grouped) > 180
    assert set(gdtx.__all__) - set(grouped) == {module.__name__[5:] for module in MODULES}
    unlisted = {
        name for name, value in vars(gdtx).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    } - set(gdtx.__all__)  # fmt: skip
    assert not unlisted
    for group in public.GROUPS:
        for name in names(group):
            assert getattr(gdtx, name) is getattr(group, name)


def test_help_lists_all_names_by_group_with_a_line_each():
    shown = pydoc.render_doc(gdtx, renderer=pydoc.plaintext).partition("PACKAGE CONTENTS")[0]
    place = 0
    for group in public.GROUPS:
        place = shown.index(group.__doc__, place)
        for name in names(group):
            place = shown.index(f"  {name}: ", place)
            line = shown[place:].partition("\n")[0]
            assert len(line) > len(name) + 5, f"no line for {name}"
    assert "    adam: Adam.\n" in gdtx.__doc__
    assert "    Decay: in [0, 1)\n" in gdtx.__doc__


def test_dir_shows_what_a_user_calls():
    assert set(dir(gdtx)) == {*gdtx.__all__, "__doc__", "__version__"}
    calls = ["arguments", "expression", "factory", "init", "replace", "update"]
    assert dir(gdtx.adam(0.1)) == calls
    assert dir(gdtx.GradientTransformation(*gdtx.adam(0.1))) == calls
    schedule = gdtx.constant_schedule(0.1)
    assert dir(schedule) == ["arguments", "clip", "factory", "replace", "shift"]
    assert dir(gdtx.Roots()) == sorted(["replace", "arguments", "factory", *gdtx.Roots().arguments])


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "gdtx/__init__.py"
    assert re.search(rf"^## {gdtx.__version__}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_all_states_are_in_states():
    def classes(state):
        kept = jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "_fields"))
        for node in kept:
            if hasattr(node, "_fields"):
                yield type(node)
                yield from (kind for child in node for kind in classes(child))

    found = {
        kind for tx in EVERY.values() for kind in classes(jax.eval_shape(tx.init, PARAMS))
        if kind.__module__.startswith("gdtx")
    }  # fmt: skip
    assert len(found) > 20
    assert found <= {*own(states).values(), gdtx.Margins}
    for name in names(states):
        with pytest.raises(AttributeError, match=f"'{name}': use gdtx.states.{name}$"):
            getattr(gdtx, name)


def test_all_kinds_are_in_kinds():
    """Whatever the annotation of a public factory's argument is called."""
    known = {*names(kinds), *gdtx.__all__}
    plain = {"bool", "int", "float", "str", "None", "Any", "Sequence", "Callable", "Layout"}
    for path, factory in own(gdtx).items():
        if hasattr(factory, "__gdtx_signature__") and inspect.isfunction(factory):
            for name, text in factory.__wrapped__.__annotations__.items():
                if name == "return":
                    continue
                words = set(re.findall(r"\b[A-Za-z]\w*", re.sub(r"Annotated\[.*\]", "", text)))
                assert words <= known | plain, f"{path}: {name}: {text}"
    for name in names(public.kinds):
        assert getattr(kinds, name) is getattr(gdtx, name)


def paths(pickled):
    """The modules of gdtx that a pickle names."""
    return {path.decode() for path in re.findall(rb"gdtx(?:\.\w+)*", pickled)}


def test_pickles_name_public_places_and_load_elsewhere(tmp_path):
    """Functions, classes, transformations and states, none by the file that it stands in."""
    places = {"gdtx", *(module.__name__ for module in MODULES)}
    values = own(gdtx) | {path: x for module in MODULES for path, x in own(module).items()}
    assert len(values) > 280
    rows = {name: tx for name, tx in EVERY.items() if name in gdtx.__all__}
    for name, tx in rows.items():
        values[f"the state of {name}"] = jax.tree.map(str, jax.eval_shape(tx.init, PARAMS))
        with suppress(AttributeError, pickle.PicklingError):  # of functions without a name
            pickle.dumps(tx)
            values[f"the row {name}"] = tx
    assert sum(path.startswith("the row") for path in values) > 120
    for path, value in values.items():
        assert paths(pickle.dumps(value)) <= places, path
    (tmp_path / "values").write_bytes(pickle.dumps(values))
    program = f"""
import pickle
values = pickle.load(open({str(tmp_path / "values")!r}, "rb"))
import gdtx
for path, value in values.items():
    if path.startswith("gdtx"):
        assert eval(path) is value, path
assert repr(values["the row adam"]) == {repr(EVERY["adam"])!r}
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_what_users_define_stays_theirs():
    @gdtx.transformation
    def theirs(rate: gdtx.Positive):
        return gdtx.scale(rate)

    assert theirs.__module__ == __name__


def test_source_is_found_where_it_stands():
    assert "scale_by_adam(b1, b2, eps, eps_root, " in inspect.getsource(gdtx.adam)


def documented(function):
    """What the docstring says of each argument, by name."""
    text = inspect.cleandoc(function.__doc__).partition("Args:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n {4}(?! )", f"\n{text}")[1:]:
        names, _, meaning = entry.partition(": ")
        for name in re.findall(r"\w+", names):
            yield name, " ".join(meaning.split())


def test_docstrings_explain_every_argument():
    """And do not only say in which other docstring it is explained."""
    factories = {
        path: value
        for module in (gdtx, kfac)
        for path, value in own(module).items()
        if hasattr(value, "__gdtx_signature__") and inspect.isfunction(value)
    }
    assert len(factories) > 130
    for path, factory in factories.items():
        assert dict(documented(factory)).keys() == set(inspect.signature(factory).parameters), path
    functions = [own(module) for module in (gdtx, explore, interop, kfac, kinds, sharding)]
    for path, value in (item for group in functions for item in group.items()):
        assert value.__doc__, path
        for name, meaning in documented(value):
            elsewhere = re.fullmatch(r"(\$[^$]+\$,? )*(as|see)\b[^;,]*:func:`\w+`\.?", meaning)
            assert not elsewhere, f"{path}: {name}: {meaning}"
            words = re.sub(r"\$[^$]+\$", "", meaning)
            assert re.search("[a-z]{3}", words), f"{path}: {name}: {meaning}"


def averaging(decay, mask, odd):
    """An owner.

    Args:
        decay, odd: of the average, and in a second line
            the rest of it.
        mask: which arrays.

    Returns:
        Nothing.
    """


@gdtx.transformation
def theirs(rate, decay, odd, mask, other, unknown):
    r"""A method of a user, $\eta$.

    Args:
        rate: as in :func:`scale`, but larger.
        mask, decay: as in :func:`averaging`.
        odd, other: as in :func:`averaging`.
        unknown: as in :func:`nowhere`.

    Returns:
        A transformation.
    """


def test_arguments_are_explained_in_the_words_of_their_owner():
    """Where one docstring leaves them to another, that its module knows and that explains all."""
    assert (
        pydoc.getdoc(theirs)
        == r"""A method of a user, $\eta$.

Args:
    rate: as in :func:`scale`, but larger.
    decay: of the average, and in a second line
        the rest of it.
    mask: which arrays.
    odd, other: as in :func:`averaging`.
    unknown: as in :func:`nowhere`.

Returns:
    A transformation."""
    )
    owner = dict(documented(gdtx.scale_by_adam))
    assert len(owner) == 6
    assert owner.items() <= dict(documented(gdtx.adamw)).items()
    assert "as in :func:`scale_by_adam`" in inspect.getsource(gdtx.adamw)
