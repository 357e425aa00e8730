"""The built site in a real browser, as a reader meets it: on a wide and a narrow screen, with no network."""

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from sphinx_external_toc.parsing import parse_toc_yaml

import fisherbook

pytestmark = pytest.mark.slow

SITE = Path(__file__).parents[2] / "_build" / "html"
PAGES = list(parse_toc_yaml(SITE.parents[1] / "book" / "_toc.yml"))
LOOKS = [(1280, "light"), (390, "dark")]  # px, colour scheme
DRAWINGS = {"_static/logo.svg", "_images/question.svg", "_static/minus.png"}
AXE = Path(importlib.util.find_spec("axe_playwright_python").origin).with_name("axe.min.js")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first needs the least

# Panel and Bokeh draw in shadow roots, which a selector does not enter: walk them.
ELEMENTS = """function* elements(root) {
  for (const e of root.querySelectorAll('*')) { yield e; if (e.shadowRoot) yield* elements(e.shadowRoot); }
}"""
# One root per page may stay empty: that of the cell that loads HoloViews.
DRAWN = (
    "() => {"
    + ELEMENTS
    + """
  const painted = canvas => canvas.width > 0 && canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height).data.some((v, i) => i % 4 === 3 && v > 0);
  const roots = [...document.querySelectorAll('div[data-root-id]')].map(root => [...elements(root)]);
  const drawn = root => root.filter(e => e.classList.contains('bk-Canvas'))
    .every(canvas => [...elements(canvas.shadowRoot)].some(e => e.tagName === 'CANVAS' && painted(e)));
  return roots.filter(root => root.length === 0).length <= 1 && roots.every(drawn);
}"""
)
CUT = (
    "() => {"
    + ELEMENTS
    + """
  const edge = e => e.getBoundingClientRect(), article = document.querySelector('article');
  const below = canvas => [...elements(canvas.shadowRoot)].filter(e => e.classList.contains('bk-below'));
  return [...elements(article)].filter(e => e.tagName === 'CANVAS' ? edge(e).right > edge(article).right + 1
    : e.classList.contains('bk-Canvas') && below(e).some(axis => edge(axis).bottom > edge(e).bottom + 1)).length;
}"""
)
CATCHING = (
    "() => {"
    + ELEMENTS
    + """
  return [...elements(document)].filter(e => e.closest('.bk-Canvas, .bk-Events') || e.className === 'bk-Canvas')
    .map(e => getComputedStyle(e).touchAction).filter(action => action === 'none' || action === 'pan-x');
}"""
)
# What makes a page wider than its window, if anything still does when it is whole.
ASIDE = """async width => {
  const aside = () => document.documentElement.scrollWidth > width;
  for (let tries = 0; aside() && tries < 50; tries++) await new Promise(done => setTimeout(done, 100));
  return !aside() ? [] : [...document.querySelectorAll('body *')].map(e => [e, e.getBoundingClientRect()])
    .filter(([e, edge]) => edge.width && edge.right > width)
    .map(([e, edge]) => `${e.tagName}.${e.className} ${edge.right}: ${e.textContent.trim().slice(0, 60)}`)
    .concat(`${document.documentElement.scrollWidth} pixels`);
}"""
BEYOND = """() => {
  const edge = document.querySelector('article').getBoundingClientRect().right + 1;
  return [...document.querySelectorAll('article mjx-math')]
    .filter(e => e.getBoundingClientRect().right > edge).map(e => e.textContent);
}"""
NAMELESS = (
    "() => {"
    + ELEMENTS
    + """
  return [...elements(document)]
    .filter(e => e.getAttribute('role') === 'slider' && !e.getAttribute('aria-label')).length;
}"""
)
# What is folded fades in: colours are looked at when it has.
UNFOLD = """() => {
  document.querySelectorAll('article details').forEach(folded => folded.open = true);
  document.getAnimations().forEach(animation => animation.finish());
}"""
# Contrast, which takes axe the longest, is a matter of colours and size: of elements alike in these, one is looked at.
LOOK_AT = (
    "() => {"
    + ELEMENTS
    + """
  const behind = e => {
    const above = e => e.parentElement || e.getRootNode().host;
    while (above(e) && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = above(e);
    return getComputedStyle(e).backgroundColor;
  };
  const met = new Map();
  for (const e of elements(document.body)) {
    const look = getComputedStyle(e);
    const key = [behind(e), ...['color', 'fontSize', 'fontWeight', 'opacity', 'visibility'].map(k => look[k])].join();
    if (!met.has(key)) met.set(key, e);
  }
  for (const e of met.values()) e.setAttribute('data-looked-at', '');
}"""
)
# What axe finds: the rule, and the first element that breaks it with what is wrong there.
FOUND = """async () => {
  axe.configure({rules: [{id: 'color-contrast', selector: '[data-looked-at]'}]});
  const found = await axe.run(document, {resultTypes: ['violations'], preload: false});
  return found.violations.filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => `${v.impact} ${v.id} (${v.nodes.length}): ${v.nodes[0].target.flat()} ${v.nodes[0].failureSummary}`);
}"""


def _absent(what):
    """Skip a test for want of something, or fail it where the site is required."""
    sentence = f"{what}; the site is not tested"
    if os.environ.get("REQUIRE_SITE") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="module")
def address():
    if not (SITE / "index.html").is_file():
        _absent("there is no built site, which `make book` makes")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One window for all pages, so that their scripts are compiled once."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        _absent(f"there is no browser ({', '.join(BROWSERS)})")
    with sync_playwright() as playwright:
        options = {"executable_path": executable, "args": ["--no-sandbox", "--disable-gpu"]}
        browser = playwright.chromium.launch_persistent_context(tmp_path_factory.mktemp("browser"), **options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open a page of the site; in the end, all that went wrong meanwhile fails the test."""
    faults, opened = [], []

    def open_page(path, width=1280, scheme="light", base=address):
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        opened.append(page)
        page.on(
            "request",
            lambda r: r.url.startswith((base, "data:", "blob:")) or faults.append(f"asks for {r.url}"),
        )
        page.on("requestfailed", lambda r: faults.append(f"failed to load {r.url}"))
        page.on("response", lambda r: r.status < 400 or faults.append(f"status {r.status} for {r.url}"))
        page.on("pageerror", lambda e: faults.append(f"script error: {e}"))
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and faults.append(f"console {m.type}: {m.text}"),
        )
        page.goto(f"{base}/{path}", wait_until="load")
        page.wait_for_function(DRAWN, timeout=20_000)
        return page

    yield open_page
    for page in opened:
        page.close()
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", PAGES)
def test_wheel_and_finger_over_a_figure_move_the_page(open_page, name):
    page = open_page(f"{name}.html", 390)
    figures = page.locator(".bk-Canvas:visible")
    for number in range(min(figures.count(), 2)):
        figures.nth(number).scroll_into_view_if_needed()
        edges, before = figures.nth(number).bounding_box(), page.evaluate("window.scrollY")
        page.mouse.move(edges["x"] + edges["width"] / 2, max(edges["y"], 0) + 60)
        page.mouse.wheel(0, -80 if before > 200 else 80)
        page.wait_for_function(f"window.scrollY !== {before}", timeout=3000)
    assert page.evaluate(CATCHING) == [], "a finger is caught"


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_and_open_to_everyone(open_page, name, width, scheme):
    page = open_page(f"{name}.html", width, scheme)
    assert page.evaluate(ASIDE, width) == [], "the page scrolls sideways"
    assert page.evaluate(CUT) == 0, "a plot is cut off"
    assert page.evaluate(BEYOND) == [], "a formula is wider than the page"
    assert not page.locator("mjx-merror").count(), "a formula is wrong"
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
    page.wait_for_function(f"() => ({NAMELESS})() === 0", timeout=5000)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate(UNFOLD)
    page.evaluate(LOOK_AT)
    page.add_script_tag(path=AXE)
    assert page.evaluate(FOUND) == []


def test_index_leads_to_the_first_page_and_search_finds_a_term(open_page):
    assert open_page("index.html").wait_for_url("**/intro.html") is None
    page = open_page("search.html?q=information")
    page.wait_for_selector("#search-results li", timeout=10_000)


def test_a_browser_finds_the_icon_where_no_page_names_it(open_page, address):
    page = open_page("index.html")
    answer = page.request.get(f"{address}/favicon.ico")
    assert answer.ok and answer.body()[:4] == b"\0\0\1\0"


def test_the_face_on_the_first_page_turns_by_keyboard_and_says_what_is_known(open_page):
    page = open_page("intro.html", 390, "light")
    box, slider = page.locator(".fb-turn"), page.locator(".fb-turn input")
    told = box.locator("p").inner_text()
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert "At 50°" in box.locator("p").inner_text() != told
    assert box.locator("img").evaluate("face => face.style.transform") == "rotate(-50deg)"
    for button in box.locator("button").all():
        before, curve = box.locator("p").inner_text(), box.locator("polyline").get_attribute("points")
        button.focus()
        page.keyboard.press("Enter")
        assert "At 50°" in box.locator("p").inner_text() != before
        assert box.locator("polyline").get_attribute("points") != curve


def test_slider_moves_a_curve_by_keyboard_alone(open_page):
    page = open_page("roughness.html")
    handle = page.locator("[role=slider]").first
    plot = page.locator(".cell_output", has=handle).locator(".bk-Canvas").first
    _tab_to(page, "e => e.getAttribute('role') === 'slider'")
    before, value = plot.screenshot(), handle.get_attribute("aria-valuenow")
    assert plot.screenshot() == before
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(1000)
    assert handle.get_attribute("aria-valuenow") != value
    assert plot.screenshot() != before


def _tab_to(page, wanted, steps=300):
    """Press the tabulator until the focus is on an element that is wanted."""
    focus = "() => { let e = document.activeElement; while (e.shadowRoot) e = e.shadowRoot.activeElement; return e; }"
    for _ in range(steps):
        page.keyboard.press("Tab")
        if page.evaluate(f"({wanted})(({focus})())"):
            return
    pytest.fail("the keyboard does not reach it")


def test_keyboard_reaches_search_and_folded_code(open_page):
    page = open_page("roughness.html")
    _tab_to(page, "e => e.matches('.search-button-field, .search-button, input[type=search]')")
    _tab_to(page, "e => e.matches('summary')")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


def test_every_public_name_has_its_place_on_the_pages_of_the_package(address):
    texts = [(SITE / f"{name}.html").read_text(encoding="utf-8") for name in PAGES if name.startswith("api")]
    shown = {name.rpartition(".")[2] for text in texts for name in re.findall(r'<dt [^>]*id="([^"]+)"', text)}
    modules = {"calibration", "curves", "distances", "figures", "findings", "gain", "intervals", "sampling"}
    modules.add("power_law")
    assert set(fisherbook.__all__) - modules <= shown


@pytest.mark.parametrize("name", ["results", "roughness"])
def test_a_term_tells_its_meaning(open_page, name):
    page = open_page(f"{name}.html")
    assert len(page.locator("a[title]:has(.std-term)").first.get_attribute("title").split()) > 5


def test_a_finger_and_the_keyboard_learn_a_term_s_meaning_too(open_page):
    page = open_page("results.html", 390)
    link, meaning = page.locator("article a[title]:has(.std-term)").first, page.locator(".fb-meaning")
    link.dispatch_event("pointerdown", {"pointerType": "touch"})
    link.dispatch_event("click")
    assert link.get_attribute("title") in meaning.inner_text()
    assert page.url.endswith("results.html") and meaning.locator("a").get_attribute("href").endswith("-information")
    page.locator("article h1").click()
    assert not meaning.count()
    _tab_to(page, "e => e.matches('a[title]:has(.std-term)')")
    assert meaning.count() == 1
    page.keyboard.press("Escape")
    assert not meaning.count()


def test_first_page_has_every_claim_once_and_counts_them(open_page):
    page = open_page("intro.html", 390)
    profile = re.search(r"made with the (\w+) profile", page.locator("article").inner_text())[1]
    rows = json.loads((SITE.parent / "book" / profile / "findings.json").read_text())
    assert page.locator(".fb-row p").all_text_contents() == [row["sentence"] for row in rows]
    assert page.locator(".fb-page").count() == len({row["page"] for row in rows})
    assert page.locator("article").get_by_text(re.compile(rf"^{len(rows)} claims")).count() == 1
    assert not page.locator(".fb-page details .fb-row").first.is_visible()
    page.locator(".fb-page summary").first.press("Enter")
    assert page.locator(".fb-page details .fb-row").first.is_visible()


def test_no_page_shows_a_picture_but_drawings_and_the_faces_that_come_with_the_book(address):
    for path in SITE.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        shown = set(re.findall(r'<img\b[^>]*?\bsrc="([^"]*)"', text))
        inside = [source for source in shown if source.startswith("data:")]  # the first page's, of the book's own faces
        assert shown - set(inside) <= DRAWINGS, path.name
        assert len(inside) == len(re.findall("data:image/(?!svg)", text)) == (path.name == "intro.html"), path.name
        drawn = set(re.findall(r'"name":"(Image\w*)"', text))
        assert drawn <= ({"Image"} if path.name == "task.html" else set()), path.name
    assert "celeba" not in (SITE / "_sources" / "task.ipynb").read_text(encoding="utf-8").lower()
    assert {path.name for path in SITE.glob("_images/*")} <= {"question.svg"}
    for path in SITE.glob("_sources/*.ipynb"):  # which a page offers to download
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells), path.name
        committed = json.loads((SITE.parents[1] / "book" / path.name).read_text(encoding="utf-8"))["cells"]
        assert ["".join(c["source"]) for c in cells] == ["".join(c["source"]) for c in committed], path.name


def test_every_figure_offers_its_numbers(address):
    for path in SITE.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        tables = re.findall(r'<a download="[^"]*" href="(_static/tables/[^"]*)"', text)
        assert len(tables) == text.count('<p class="fb-caption">'), path.name
        assert len(set(tables)) == len(tables), path.name
        assert all((SITE / table).read_text(encoding="utf-8").count("\n") > 1 for table in tables)


def test_site_opens_from_the_disk(open_page):
    page = open_page("intro.html", base=SITE.as_uri())
    assert page.locator("article h1").first.is_visible()


def test_no_page_shows_the_folder_of_the_machine_that_built_it(address):
    for path in [*SITE.rglob("*.html"), *SITE.rglob("*.js"), *SITE.glob("_sources/*")]:
        assert f"{SITE.parents[1]}/" not in path.read_text(encoding="utf-8"), path.name


def test_site_is_small(address):
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 40e6
    assert all(path.stat().st_size < 1.5e6 for path in SITE.glob("*.html"))
