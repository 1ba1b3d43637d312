"""The site in a real browser: `python -m pytest docs/test_site.py`, after it was built.

Needs Chromium, which is looked for on PATH. Nothing but the site itself is reachable: a request to
anywhere else is a failure. Of the reference, whose pages one program writes, each eighth is quick;
`-m ""` looks at all.
"""

import functools
import shutil
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).parent / "_build" / "html"
PAGES = sorted(
    str(page.relative_to(SITE))
    for page in SITE.rglob("*.html")
    # Sources in colours: they have no formulas and no pictures, and their links are checked.
    if "_modules" not in page.parts
)
REFERENCE = [name for name in PAGES if name.startswith("reference/")]
SLOW = set(REFERENCE) - set(REFERENCE[::8])
WIDTHS = (1440, 390)
SCHEMES = ("light", "dark")

# For each element with text of its own: how its colour stands out from what is behind it, by the
# definition of contrast in WCAG 2.
CONTRAST = """() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = [r, g, b].map(x => x / 255).map(
      x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length == 3 || color[3] == 1) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("article *, .sidebar-tree a")) {
    const own = [...element.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own || !element.checkVisibility({visibilityProperty: true, opacityProperty: true}))
      continue;
    if (element.closest("svg, .headerlink, mjx-assistive-mml, .copybtn")) continue;
    const [x, y] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    if (contrast < 4.5) faint.push([contrast.toFixed(1), element.textContent.trim().slice(0, 40)]);
  }
  return faint;
}"""


# Text with marks that should have become a formula or a link.
RAW = """() => [...document.querySelectorAll("article p, article li, article td")].map(e => {
  const copy = e.cloneNode(true);
  copy.querySelectorAll("pre, .math, mjx-container").forEach(x => x.remove());
  const role = /\\{(any|doc|ref|py:\\w+)\\}/.test(copy.textContent);
  copy.querySelectorAll("code").forEach(x => x.remove());
  return role || copy.textContent.includes("$") ? e.textContent.trim().slice(0, 80) : "";
}).filter(text => text)"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address():
    """Where the site is served, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def view(browser, address):
    """A window, and what went wrong in it since it was last asked."""
    wrong = []
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # What a page still asks for when it is left, such as summaries of a search, is aborted.
    page.on(
        "requestfailed",
        lambda r: None if r.failure == "net::ERR_ABORTED" else wrong.append(f"failed: {r.url}"),
    )
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url),
    )
    return page, wrong


def visit(view, url):
    page, wrong = view
    wrong.clear()
    page.goto(url)
    page.add_style_tag(content="* { transition: none !important }")  # colours at once
    # Formulas are set after the page has loaded.
    page.evaluate("window.MathJax?.startup?.promise")
    return page, wrong


def test_the_site_is_built():
    assert {
        "index.html",
        "which.html",
        "recipes.html",
        "search.html",
        "reference/adam.html",
    } <= set(PAGES)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PAGES],
)
def test_a_page(view, address, name):
    page, wrong = visit(view, f"{address}/{name}")
    assert not wrong
    assert page.title()
    assert name == "search.html" or page.locator("h1").first.inner_text()
    formulas = page.locator("article .math").count()
    assert page.locator("article .math mjx-container").count() >= formulas
    assert page.locator("mjx-merror, .problematic, .system-message").count() == 0
    assert not page.evaluate(RAW), "markup that was not understood"
    without_text = page.eval_on_selector_all(
        "article img", "all => all.filter(i => !i.naturalWidth || !i.alt).map(i => i.src)"
    )
    assert not without_text, "not shown, or without alternative text"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert not page.evaluate(CONTRAST), f"too faint in {scheme}"
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ("warmup_cosine_decay_schedule", "reference/warmup_cosine_decay_schedule.html"),
        ("bfloat16", "how/half_precision.html"),
        ("freeze", "how/freeze.html"),
        ("learning rate sweep", "how/sweep.html"),
        ("grid search", "how/sweep.html"),
        ("train in batches", "how/train.html"),
        ("LaProp", "recipes.html"),
    ],
)
def test_search(view, address, words, target):
    page, wrong = visit(view, address)
    box = page.locator("input.sidebar-search")
    box.fill(words)
    box.press("Enter")
    page.get_by_text("Search finished").wait_for()
    first = [link.get_attribute("href") for link in page.locator("ul.search li > a").all()[:5]]
    assert any(target in link for link in first), first
    assert not wrong


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.names, self.targets = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names.update(filter(None, (given.get("id"), tag == "a" and given.get("name"))))
        if target := given.get("href") if tag == "a" else given.get("src"):
            self.targets.add(target)


@functools.cache
def links(page: Path) -> Links:
    return Links(page.read_text())


def test_no_link_is_dead():
    dead = []
    for page in SITE.rglob("*.html"):
        for target in links(page).targets:
            where = urlsplit(target)
            if where.scheme or where.netloc:
                continue
            to = (page.parent / unquote(where.path)).resolve() if where.path else page
            to = to / "index.html" if to.is_dir() else to
            name = unquote(where.fragment)
            if not to.exists() or (name and to.suffix == ".html" and name not in links(to).names):
                dead.append(f"{page.relative_to(SITE)}: {target}")
    assert not dead
