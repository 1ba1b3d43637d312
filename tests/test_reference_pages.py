"""The reference: every public name has its page, made from the code, and nothing is left out."""

import inspect
import pydoc
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import gdtx
from gdtx import explore, interop, kfac, kinds, sharding, states

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

from reference import (  # noqa: E402
    docstrings,
    errors,
    examples,
    inventory,
    mistakes,
    pictures,
    sidebar,
    signatures,
    writing,
)

FIGURE = "the figure"


@pytest.fixture(scope="module")
def pages():
    figures = {entry.path: FIGURE for entry in inventory.entries() if pictures.drawn(entry)}
    return dict(writing.texts(DOCS, figures))


def public():
    for name in gdtx.__all__:
        yield f"gdtx.{name}", getattr(gdtx, name)
    for module in (explore, interop, kfac, kinds, sharding, states):
        for name, value in vars(module).items():
            if not name.startswith("_") and not isinstance(value, ModuleType):
                yield f"{module.__name__}.{name}", value


def test_every_public_name_has_its_page(pages):
    described = {}
    for page, text in pages.items():
        for name, module in re.findall(r"^`{8}\{py:\w+\} (\w+).*\n:module: (\S+)$", text, re.M):
            described.setdefault(f"{module}.{name}", []).append(page)
        for name in re.findall(r"\{py:module\} (\S+)", text):
            described.setdefault(name, []).append(page)
    assert all(len(where) == 1 for where in described.values())
    count = 0
    for path, value in public():
        own = inventory.by_path()[path].path
        assert inventory.by_path()[path].value is value
        (page,) = described[own]
        assert page == "states" or page.removesuffix(".class") in own
        assert f" <{own}>`" in pages["all"]
        count += 1
    assert count > 300
    assert len({page.lower() for page in pages}) == len(pages), "one file, on some systems"


def test_transformations_show_formula_state_and_picture(pages):
    shown = [x for x in inventory.entries() if x.is_transformation or x.is_schedule]
    assert len(shown) > 150
    for entry in shown:
        text = pages[entry.page]
        if entry.path == "gdtx.interop.from_optax":  # its formula is another library's
            continue
        assert FIGURE in text, entry.path
        if entry.is_transformation:
            assert "## Formula" in text, entry.path
            assert "\n$$\n" in text, entry.path
            assert "## State" in text, entry.path


def test_pages_say_what_docstrings_say(pages):
    text = pages["adam"]
    assert "learning_rate: gdtx.NonNegative, b1: gdtx.Decay = 0.9" in text
    assert r":param b1: $\beta_1$, decay of the first moment." in text
    assert "{py:obj}`scale_by_adam <gdtx.scale_by_adam>`" in text
    assert "0.mu.0.value" in text
    assert "8 bytes a parameter" in text
    assert r"\frac{\hat{m}_t}{\sqrt{\hat{v}_t} + \epsilon}" in text
    assert "chain(scale_by_adam(), scale_by_learning_rate(0.1))" in text
    assert "\nreturn accumulate(lambda u, m: decay * m + (1 - decay) * u, " in pages["ema"]
    for entry in inventory.entries():
        for role in re.findall(r":(?:func|class):`([^`]+)`", inspect.getdoc(entry.value) or ""):
            inside = role.startswith("~gdtx.") and pydoc.locate(role[1:])
            assert inside or inventory.resolved(role, entry), f"{entry.path}: {role}"


def test_links_lead_to_public_names(pages):
    links = {
        (page, path)
        for page, text in pages.items()
        for path in re.findall(r"\{py:obj\}`(?:[^`<]*<|~)?(gdtx[^`>]*)>?`", text)
    }
    assert len(links) > 1000
    assert not {link for link in links if link[1] not in inventory.by_path()}
    signature = signatures.signature(inventory.by_path()["gdtx.explore.trajectories"])
    assert "Mapping[str, gdtx.GradientTransformation]" in signature
    assert signature.endswith("-> gdtx.explore.Trajectories")


def test_source_is_where_each_name_is_written():
    for path in ("gdtx.adam", "gdtx.Schedule", "gdtx.kfac.kfac", "gdtx.explore.Trajectories"):
        entry = inventory.by_path()[path]
        assert re.search(rf"^(def|class) {entry.name}\b", source(entry.origin), re.M), path
    for entry in inventory.entries():
        if not isinstance(entry.value, ModuleType):
            assert re.search(rf"\b{entry.name}\b", source(entry.origin)), entry.path


def source(module):
    return inspect.getsource(sys.modules[module])


def test_errors_are_raised_as_they_are_shown(pages):
    rows = [row for rows in mistakes.SECTIONS.values() for row in rows]
    assert len(rows) >= 30
    text = pages["errors"]
    for title, program, cure in rows:
        assert f"### {title}\n" in text
        assert program in text
        assert cure in text
    shown = re.findall(r"error-message\n(.+)$", text, re.M)
    assert len(shown) == len(rows)
    assert "TypeError: adam: unknown argument 'lr', did you mean 'learning_rate'?" in text
    assert not re.search(r"/(home|tmp|root|Users)/", text)
    with pytest.raises(AssertionError, match="no error, and no warning"):
        errors.message("gdtx.adam(0.1)")


def test_kinds_show_their_errors(pages):
    assert "`ValueError: method: value must be in [0, 1), got 1.5`" in pages["kinds"]
    assert "- {py:obj}`~gdtx.ema`: `decay`" in pages["Decay"]
    rows = re.findall(r"^\| \{py:obj\}.*\|$", pages["kinds"].partition("## Types")[0], re.M)
    assert len(rows) > 25
    assert all("Error: method: value must be" in row for row in rows)


@pytest.mark.parametrize(
    "name", ["trace", "sgd", "linear_schedule", "differentially_private_aggregate"]
)
def test_pictures_are_drawn_with_words_for_them(name, tmp_path):
    entry = inventory.by_path()[f"gdtx.{name}"]
    figure = pictures.figure(entry, tmp_path)
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert re.search(rf":alt: .*{name}", figure)


def test_what_would_not_change_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "figures", lambda folder, redraw: {})
    monkeypatch.setattr(writing, "texts", lambda source, figures: [("a", "one"), ("b", "two")])
    writing.write(tmp_path)
    folder = tmp_path / "reference"
    (folder / "gone.md").write_text("of a name that is no longer there")
    before = (folder / "a.md").stat().st_mtime_ns
    monkeypatch.setattr(writing, "texts", lambda source, figures: [("a", "one"), ("b", "three")])
    writing.write(tmp_path)
    assert (folder / "a.md").stat().st_mtime_ns == before
    assert (folder / "b.md").read_text() == "three"
    assert sorted(path.name for path in folder.iterdir()) == ["a.md", "b.md"]


def test_examples_are_made_of_names_and_kinds():
    def link(share: kinds.InnerDecay, inside: kinds.TransformationLike, plain: float = 1.0):
        return inside

    def other(table):
        return table

    def entry(f):
        return inventory.Entry(f"gdtx.{f.__name__}", (), gdtx.transformation(f), "gdtx", gdtx)

    assert examples.call(entry(link)) == "link(0.9, ema(0.9))"
    with pytest.raises(LookupError, match=r"gdtx\.other: no example of its argument table"):
        examples.call(entry(other))


def test_classes_show_what_is_called():
    text = writing.pages.page(inventory.by_path()["gdtx.GradientTransformation"])
    shown = re.findall(r"`````\{py:\w+\} GradientTransformation\.(\w+)", text)
    assert sorted(shown) == ["arguments", "expression", "init", "replace", "update"]


def test_sections_of_docstrings():
    def f(x):
        """What it does.

        Args:
            x: a number,
                in two lines.

        Raises:
            ValueError: if not.

        References:
            A 2000, :func:`adam`.

        >>> 1 + 1
        2
        """

    entry = inventory.Entry("gdtx.f", (), f, "gdtx", gdtx)
    assert docstrings.body(entry) == (
        "What it does.\n\n:param x: a number, in two lines.\n:raises ValueError: if not.\n\n"
        "**Source.** A 2000, {py:obj}`adam <gdtx.adam>`."
    )
    assert docstrings.example(entry) == "```{code-block} pycon\n>>> 1 + 1\n2\n```"


def test_the_sidebar_marks_the_current_page_and_what_it_lies_in():
    def item(name, classes="", link="", uri="", box=None, inner=""):
        box = "" if box is None else f'<input {box}id="{name}" type="checkbox"/>'
        return (
            f'<li class="level{classes}"><a class="{link}internal" href="{uri or f"{name}.html"}">'
            f"{name}</a>{box}{inner}</li>"
        )

    def tree(*leaves, opened="", classes=" has-children"):
        inner = f"<ul>{''.join(leaves)}</ul>"
        return item("methods", classes, box=opened, inner=inner) + item("index")

    adam, adamw = item("adam"), item("adamw")
    here = item("adam", " current current-page", "current ", "#")
    includes = {"index": ["index", "a/methods", "a/all"], "a/methods": ["a/adam", "a/adamw"]}
    app = SimpleNamespace(
        config=SimpleNamespace(root_doc="index"),
        env=SimpleNamespace(toctree_includes=includes),
        builder=SimpleNamespace(get_relative_uri=lambda _, to: f"{to.rpartition('/')[2]}.html"),
    )
    context = {"furo_navigation_tree": tree(adam, adamw)}
    sidebar.marked(app, "a/adam", "", context, None)
    expected = tree(here, adamw, opened='checked="" ', classes=" current has-children")
    assert context["furo_navigation_tree"] == expected
    sidebar.marked(app, "elsewhere", "", context, None)
    assert context["furo_navigation_tree"] == expected
