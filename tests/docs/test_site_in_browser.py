"""The site as chromium shows it from the file system: nothing cut at any width, nothing from elsewhere, no errors."""

from __future__ import annotations

import json

import pytest

from tests.browser import chromium

pytestmark = pytest.mark.more
WIDTHS = (390, 1280, 1920)
# What reaches beyond the window and cannot be scrolled into view, and code that is cut or scrolls.
CUT = """
const width = document.documentElement.clientWidth;
const scrolls = element => {
  for (; element && element !== document.body; element = element.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX)) return true;
  return false;
};
const parts = [".md-content *", ".md-header *", ".md-tabs *", ".md-footer *"].join();
const beyond = [...document.querySelectorAll(parts)].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width && box.right > width + 1 && !scrolls(element);
});
const code = [...document.querySelectorAll("pre > code")].filter(each => each.scrollWidth > each.clientWidth + 1);
return [...beyond, ...code].map(each => each.outerHTML.slice(0, 200));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium"), "browser", "performance") as browser:
        yield browser


def resize(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def until(browser, found, seconds=20):
    """Return what ``found`` returns as soon as it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds).until(found)


def requests(browser):
    """Return the addresses that were asked for since the last call."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def test_no_page_is_cut_asks_the_network_or_reports_an_error(site, browser):
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        browser.get(page.as_uri())
        for width in WIDTHS:
            resize(browser, width)
            assert browser.execute_script(CUT) == [], (page.name, width)
        assert browser.get_log("browser") == [], page.name
        assert [url for url in requests(browser) if url.startswith(("http", "ws"))] == [], page.name
    assert len(pages) > 50


@pytest.mark.parametrize("page", ["index.html", "how-to/vit.html"])
def test_the_search_finds_pages_without_a_server(site, browser, page):
    resize(browser, 1280)
    browser.get((site / page).as_uri())
    field = browser.find_element("css selector", "input.md-search__input")
    field.click()
    field.send_keys("depolarizing")
    found = until(browser, lambda driver: driver.find_elements("css selector", ".md-search-result__item a"))
    assert any("how-to/noise.html" in link.get_attribute("href") for link in found)


@pytest.mark.parametrize("page", ["findings", "benchmarks/scaling", "design/index", "circuits/index"])
def test_figures_keep_the_size_of_their_letters_on_a_narrow_page(site, browser, page):
    resize(browser, 390)
    browser.get((site / f"{page}.html").as_uri())
    widths = "return [...document.querySelectorAll('.md-content p > img')].map(e => e.getBoundingClientRect().width)"
    found = browser.execute_script(widths)
    assert found and min(found) > 500


@pytest.mark.parametrize("page", ["how-to/adapters", "how-to/hardware", "testing"])
def test_a_column_of_sentences_is_wider_than_a_word_on_a_narrow_page(site, browser, page):
    resize(browser, 390)
    browser.get((site / f"{page}.html").as_uri())
    widths = "return [...document.querySelectorAll('th:nth-child(2)')].map(e => e.getBoundingClientRect().width)"
    assert min(until(browser, lambda driver: driver.execute_script(widths))) > 150  # a script moves tables


def test_a_table_without_headings_shows_no_empty_row(site, browser):
    browser.get((site / "how-to/deploy.html").as_uri())
    heads = "return [...document.querySelectorAll('thead')].filter(e => !e.textContent.trim()).map(e => e.offsetHeight)"
    assert until(browser, lambda driver: driver.execute_script(heads)) == [0]


def test_code_is_copied_as_it_is(site, browser):
    browser.get((site / "tutorial.html").as_uri())
    code = browser.find_element("css selector", ".language-python pre > code")
    copied = "arguments[0].setAttribute('data-md-copying', ''); return arguments[0].innerText"  # as the theme does
    text = browser.execute_script(copied, code)
    assert text.startswith("import qiskit_qattn as qa\n\ncircuit = ") and "\n\n\n" not in text
    compile(text, "copied", "exec")


def test_dark_and_light(site, browser):
    resize(browser, 1280)
    browser.get((site / "heads.html").as_uri())
    seen = []
    for _ in range(2):
        seen.append(browser.find_element("tag name", "body").get_attribute("data-md-color-scheme"))
        toggle = "document.querySelector('.md-header__option label:not([hidden])').click()"
        browser.execute_script(toggle)
        until(browser, lambda driver: driver.execute_script("return document.body.dataset.mdColorScheme") != seen[-1])
    assert sorted(seen) == ["default", "slate"]


def test_formulas_have_their_font(site, browser):
    browser.get((site / "heads.html").as_uri())
    browser.execute_async_script("document.fonts.ready.then(arguments[0])")
    assert browser.execute_script("return document.fonts.check('16px Formulas')")
    heights = "return [...document.querySelectorAll('.math munder > mo')].map(e => e.getBoundingClientRect().height)"
    assert min(browser.execute_script(heights)) > 20  # sums, which only a font for mathematics has as large as this
