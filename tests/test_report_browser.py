"""The page in a browser: it loads, a click on a type changes the map, tables sort and filter, nothing runs or leaks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import stdeconv_fast as sd

HOW = "Run: apt-get install chromium; pip install 'stdeconv-fast[docs]'"
EVIL = '<img src=x onerror="window.broken = 1">'


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason=f"needs playwright and chromium. {HOW}")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip(f"needs chromium, and there is no program of this name. {HOW}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    spots, reference = sd.simulate(90, 60, 4, cells_per_type=12, n_sections=2, seed=2, as_anndata=True)
    reference.obs["celltype"] = reference.obs["celltype"].cat.rename_categories({"type1": EVIL})
    sd.tl.deconvolve(spots, reference, cell_type_key="celltype", sample_key="section", progress=False)
    spots.uns["stdeconv_params"]["diagnostics"]["notes"] = np.array([EVIL])
    file = sd.report(spots, tmp_path_factory.mktemp("page") / "page.html", title=f"A {EVIL} title")
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda fault: page.said.append(str(fault)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=20_000)
    yield page
    assert page.said == [], "nothing is said on the console"
    assert page.asked == [file.as_uri()], "nothing but the page is fetched"


def picture(page):
    """The pixels of the first map."""
    code = """() => { const c = document.querySelector('#maps canvas'), copy = document.createElement('canvas');
        [copy.width, copy.height] = [c.width, c.height];
        const context = copy.getContext('2d', { willReadFrequently: true });
        context.drawImage(c, 0, 0);
        return Array.from(new Uint32Array(context.getImageData(0, 0, c.width, c.height).data.buffer)); }"""
    return np.array(page.evaluate(code), dtype=np.uint32)


def names(page):
    return page.locator("#types tbody th").all_inner_texts()


def show(page, name):
    page.locator("#types tbody tr", has=page.get_by_role("button", name=name, exact=True)).click()
    options = page.locator("#layer option")
    page.wait_for_selector(f'body[data-shown="type {options.all_inner_texts().index(name) - 1}"]')


def test_a_click_on_a_type_changes_the_map(page):
    assert page.locator("#maps canvas").count() == 2 and page.locator("#fault").is_hidden()
    before = picture(page)
    assert len(np.unique(before)) > 3
    show(page, "type0")
    first = picture(page)
    assert (first != before).mean() > 0.2 and page.locator("#types tr.chosen th").inner_text() == "type0"
    assert page.locator("#maps canvas").first.get_attribute("aria-label").startswith("Map of the proportion of type0")
    show(page, "type2")
    assert (picture(page) != first).mean() > 0.05
    page.locator("#layer").select_option("dominant")
    page.wait_for_selector('body[data-shown="dominant"]')
    assert page.locator("#same").is_hidden()
    np.testing.assert_array_equal(picture(page), before)


def test_the_table_sorts_and_filters(page):
    means = [float(text.split()[0]) for text in page.locator("#types tbody td:nth-child(2)").all_inner_texts()]
    assert means == sorted(means, reverse=True) and len(means) == 4
    head = page.locator("#types thead th").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and names(page) == [EVIL, "type0", "type2", "type3"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending" and names(page) == ["type3", "type2", "type0", EVIL]
    page.locator("#filter").fill("YPE2")
    assert names(page) == ["type2"] and page.locator("#matches").inner_text() == "1 of 4 types"
    page.locator("#filter").fill("")
    assert len(names(page)) == 4


def test_a_section_has_its_own_map_and_table(page):
    whole = page.locator("#types tbody").inner_text()
    page.locator("#section").select_option(label="section1")
    page.wait_for_selector("#maps figure >> nth=0", state="hidden")
    assert page.locator("#types tbody").inner_text() != whole
    wide, high = page.evaluate("""() => { const c = document.querySelector('#maps figure:not([hidden]) canvas');
        return [c.width / c.clientWidth, c.height / c.clientHeight]; }""")
    assert wide == pytest.approx(high, rel=0.01), "discs are round, the map takes the room of those that went"
    assert page.locator("#maps figure:not([hidden]) figcaption").inner_text().startswith("section1")
    page.locator("#section").select_option(label="all")
    page.wait_for_selector("#maps figure >> nth=0", state="visible")
    assert page.locator("#types tbody").inner_text() == whole


def test_a_spot_tells_its_name_and_the_map_zooms(page):
    canvas = page.locator("#maps canvas").first
    box, before = canvas.bounding_box(), picture(page)
    for step in range(1, 6):  # onto a spot, not between
        canvas.hover(position={"x": box["width"] * step / 7, "y": box["height"] / 2})
        if page.locator("#hover").inner_text():
            break
    assert "dominant type" in page.locator("#hover").inner_text()
    page.locator("#zoom-in").click()
    assert (picture(page) != before).mean() > 0.05
    page.locator("#zoom-all").click()
    np.testing.assert_array_equal(picture(page), before)


def test_names_from_strangers_are_shown_and_do_not_run(page):
    assert page.locator("h1").inner_text() == f"A {EVIL} title" and page.locator("#warnings li").inner_text() == EVIL
    show(page, EVIL)
    assert page.locator("img").count() == 0 and page.evaluate("window.broken") is None


def test_it_fits_a_narrow_window_and_reads_aloud(page):
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#maps canvas").first.bounding_box()["width"] <= 360
    for control in ("#layer", "#section", "#filter", "#zoom-in", "#same"):
        assert page.evaluate("s => { const e = document.querySelector(s);"
                             "return Boolean(e.labels?.length || e.ariaLabel); }", control), control
    assert page.locator("h1").count() == 1 and page.locator("main").count() == 1


def test_dark_and_light_differ(page):
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
