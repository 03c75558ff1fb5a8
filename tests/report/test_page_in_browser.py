"""index.html in a real headless Chromium: offline, on a phone, dark, in print."""

import json
import shutil

import pytest

from benchmarks.synthetic_runs import CNN, paper_runs, write_run
from fisher_jax.report.__main__ import main
from fisher_jax.report.item import all_items

pytestmark = pytest.mark.slow

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ITEMS = all_items().values()
LONG = "a_very_long_name_without_any_space_" * 6 + "<b>bold</b>"


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    paper_runs(runs, num_epochs=6, num_seeds=1)
    hostile = CNN | {"dataset.name": LONG, "train.num_epochs": 2}
    path = write_run(runs / "hostile", experiment="table1", changes=hostile)
    place = {"experiment": "table1", "method": LONG, "setting": LONG}
    (path / "run.json").write_text(json.dumps(place))
    broken = CNN | {"dataset.name": "svhn", "train.num_epochs": 6}
    write_run(
        runs / "broken",
        experiment="table1",
        changes=broken,
        method="fp",
        until_epoch=1,
    )
    out = tmp_path_factory.mktemp("out")
    assert main([str(runs), f"--out={out}"]) == 0
    return (out / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("BROWSER TEST SKIPPED: pip install playwright")
    if chromium is None:
        pytest.skip("BROWSER TEST SKIPPED: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def open_page(browser, page_url):
    """Opens the page and fails the test on any console message or request."""
    contexts, noise = [], []

    def open_it(**options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("requestfailed", lambda request: noise.append(request.url[:80]))
        page.on("dialog", lambda dialog: noise.append(dialog.message))

        def seen(request):
            if not request.url.startswith(("data:image/png", "data:,", page_url)):
                noise.append(request.url[:80])

        page.on("request", seen)
        page.goto(page_url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert noise == []


def test_everything_loads_without_a_network(open_page):
    page = open_page()
    images = page.locator("img")
    assert images.count() == sum(item.figure is not None for item in ITEMS)
    for index in range(images.count()):
        assert images.nth(index).evaluate("i => i.complete && i.naturalWidth > 500")
        assert len(images.nth(index).get_attribute("alt")) > 60
    # The runs come from no sweep, so that no search is shown.
    assert page.locator("section.item table").count() == sum(
        item.table is not None for item in ITEMS if item.experiments
    )
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def column(page, table, number):
    rows = page.locator(f"{table} tbody tr")
    texts = rows.locator(f"td:nth-child({number})").evaluate_all(
        "cells => cells.map(c => c.dataset.sort)"
    )
    return [float(text) if text else None for text in texts]


def test_columns_sort_both_ways_with_missing_values_last(open_page):
    page = open_page()
    button = page.locator("#table1 thead button", has_text="FP").first
    button.click()
    heading = page.locator("#table1 thead th[aria-sort=ascending]")
    assert heading.inner_text().startswith("FP")
    values = column(page, "#table1", 6)
    known = [value for value in values if value is not None]
    assert len(known) >= 5
    assert None in values
    assert values == sorted(known) + [None] * (len(values) - len(known))
    button.press("Enter")  # by keyboard the other way
    values = column(page, "#table1", 6)
    assert values[: len(known)] == sorted(known, reverse=True)
    page.locator("#sweeps thead button").first.click()
    names = page.locator("#sweeps tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_sideways_scrolling_at_any_width(open_page, width, scheme):
    page = open_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wider = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(
            e => e.getBoundingClientRect().right > innerWidth + 1
        ).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert wider == []


def test_dark_mode_and_print_have_readable_contrast(open_page):
    for options, media in (({"color_scheme": "dark"}, "screen"), ({}, "print")):
        page = open_page(**options)
        page.emulate_media(media=media, color_scheme=options.get("color_scheme"))
        for selector in ("p", ".status.undecided", "figcaption", "a", ".paper"):
            ratio = page.locator(selector).first.evaluate(CONTRAST)
            assert ratio >= 4.5, (selector, media, ratio)
    assert page.locator("nav").is_hidden()


# WCAG 2: the ratio of the relative luminances of text and what lies behind it.
CONTRAST = """element => {
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => channels(color).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element;
  while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0)
    behind = behind.parentElement;
  const back = behind ? getComputedStyle(behind).backgroundColor : "rgb(255,255,255)";
  const pair = [luminance(getComputedStyle(element).color), luminance(back)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


def test_names_out_of_runs_are_text(open_page):
    page = open_page()
    assert page.locator("b").count() == 0
    assert "<b>bold</b>" in page.locator("#table1").inner_text()


def test_without_javascript_everything_can_still_be_read(open_page):
    page = open_page(java_script_enabled=False)
    shown = sum(bool(item.experiments) for item in ITEMS)
    assert page.locator("section.item").count() == shown
    assert "undecided" in page.locator("#verdicts").inner_text()
