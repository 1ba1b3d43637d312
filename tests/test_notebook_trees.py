"""What notebooks show in HTML: expressions as trees whose formulas fold, schedules with a plot."""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import pytest
from everything import EVERY

import gdtx


class Tags(HTMLParser):
    """Fails where tags are not closed in order; collects texts and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.summaries, self.images = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        else:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if "summary" in [tag for tag, _ in self.open]:
            folded = "open" not in next(a for tag, a in self.open[::-1] if tag == "details")
            self.summaries.append((data, folded))


def test_a_tree_has_every_part_and_folds_formulas_alone():
    clipped = gdtx.chain(gdtx.clip(1.0), gdtx.expand(gdtx.scale_by_adam(0.8)))
    page = clipped._repr_html_()
    assert Tags(page).summaries == [
        ("chain(…)", False),
        ("clip(1.0)", True),
        ("join(divide, …)", False),
        ("mu=first_moment(0.8)", True),
        ("nu=chain(…)", False),
        ("second_moment(0.999)", True),
        ("root(1e-08)", True),
    ]
    # The formula of the whole, and of each part that has no parts.
    assert page.count("$$") == 2 * 5
    assert gdtx.latex(clipped).splitlines()[1].replace("&", "&amp;") in page


def test_groups_are_named_and_text_is_text():
    tx = gdtx.partition({"<b>": gdtx.sgd(0.1)}, [("**", "<b>")])
    assert [text for text, _ in Tags(tx._repr_html_()).summaries][-1] == "'<b>': sgd(0.1)"
    assert "<b>" not in tx._repr_html_()


def test_what_has_no_parts_is_shown_by_its_formula_alone():
    for tx in (gdtx.adam(0.1), gdtx.ema(0.9), gdtx.identity()):
        assert tx._repr_html_() is None
        assert tx._repr_latex_()


@pytest.mark.parametrize("name", EVERY)
def test_everything_is_shown(name):
    page = gdtx.chain(EVERY[name], gdtx.identity())._repr_html_()
    assert Tags(page).summaries[0] == ("chain(…)", False)


SCHEDULE = gdtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 1000)


def test_a_schedule_has_its_formula_and_a_plot_past_its_end():
    page = SCHEDULE._repr_html_()
    assert r"\cos" in page
    (image,) = Tags(page).images
    assert image["alt"] == "warmup_cosine_decay_schedule over 1200 steps"
    drawn = base64.b64decode(image["src"].partition(",")[2])
    assert drawn.startswith(b"\x89PNG")
    other = re.search(r'src="[^"]*"', gdtx.constant_schedule(1.0)._repr_html_())[0]
    assert other not in page


def test_a_schedule_that_cannot_be_drawn_keeps_its_formula():
    traced = []
    jax.make_jaxpr(lambda a: traced.append((a * SCHEDULE)._repr_html_()) or a)(jnp.float32(1))
    assert "$$s(t)" in traced[0]

    @gdtx.schedule
    def choosy(bound: int):
        return lambda step: 1.0 if step < bound else 0.0

    assert Tags(choosy(3)._repr_html_()).images == []


def test_pictures_change_no_settings_and_matplotlib_is_loaded_for_them_alone():
    code = (
        "import gdtx, sys; assert 'matplotlib' not in sys.modules;"
        "s = gdtx.linear_schedule(0.0, 1.0, 5);"
        "import matplotlib as mpl; before = dict(mpl.rcParams); assert '<img' in s._repr_html_();"
        "assert dict(mpl.rcParams) == before;"
        "sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None;"
        "assert '<img' not in s._repr_html_() and '$$' in s._repr_html_()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
