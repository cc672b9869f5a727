"""The page in a real browser: draws, answers, fits a phone, asks nothing of the network."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synthetic_records import record, star

from anynorm.report.html import write
from anynorm.study.evidence import build

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver: apt-get install chromium-driver",
)

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'><svg/onload=alert(3)>",
    "</script><script>alert(4)</script>",
    "naïve–\u202e数 ${x} %{y}",
    "a-name-without-end-" * 12,
]
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    plain = star(["none", "batch", "layer"])
    lost = [
        record(norm=n, seed=s, lr=lr, probes=lr == 0.1, status="diverged" if n == "none" else "ok")
        for n in ("none", "batch", "group", "layer")
        for s in (0, 1, 2)
        for lr in (0.1, 0.3)
    ]
    hostile = star(["none", "batch", *HOSTILE], seeds=(0, 1), subject=HOSTILE[0], data=HOSTILE[3])
    regression = {"subject": "deep-linear", "data": "gaussian", "task": "regression"}
    hostile += [record(norm=n, lr=lr, **regression) for n in ("none", "batch") for lr in (0.1, 1.0)]
    found = {
        "plain": build(plain, title="mlp-relu on digits", command="anynorm study"),
        "many": build(star(seeds=(0, 1)), title="mlp-relu on digits", command="anynorm study"),
        "diverged": build(lost, title="diverged", command="anynorm study"),
        "hostile": build(hostile, title=HOSTILE[1], command=HOSTILE[3], planned=10_000),
    }
    for name, evidence in found.items():
        write(evidence, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in found}


def visit(browser: Chrome, page: Path, width: int, scheme: str = "light") -> None:
    """Open `page` in a window of `width` and wait until all its figures are drawn.

    A page that is open that way already stays as it is: opening takes most of a test's time.
    """
    from selenium.webdriver.support.ui import WebDriverWait

    wanted = f"{width} {scheme} {page.as_uri()}"
    if browser.execute_script("return window.openedAs") == wanted:
        return
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())
    drawn = "return document.documentElement.dataset.drawn === 'yes'"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(drawn))
    browser.execute_script("window.openedAs = arguments[0]", wanted)


def requests(browser: Chrome) -> list[str]:
    """Return the addresses that the browser asked for since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def check_opens(browser: Chrome, page: Path) -> None:
    """Open `page` anew: no message on the console, no request, every figure drawn."""
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    visit(browser, page, 1280)
    assert browser.get_log("browser") == []
    asked = requests(browser)
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    check_drawn(browser)


def check_drawn(browser: Chrome) -> None:
    marks = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll("
        "'svg .scatterlayer .trace, svg .heatmaplayer .hm').length)"
    )
    assert len(marks) >= 19
    assert min(marks) > 0


def test_the_page_opens_without_a_message_or_a_request(
    browser: Chrome, pages: dict[str, Path]
) -> None:
    check_opens(browser, pages["plain"])


@pytest.mark.parametrize("claim", ["base", "lr", "loss-range", "batch"])
def test_hover_answers(browser: Chrome, pages: dict[str, Path], claim: str) -> None:
    visit(browser, pages["plain"], 1280)
    assert "[" in hovered(browser, f"[data-figure='s0-{claim}-figure']")


def hovered(browser: Chrome, plot: str) -> str:
    """Move the mouse onto a mark of a figure and return what appears."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    element = browser.find_element("css selector", plot)
    browser.execute_script(SHOW, element)
    x, y = browser.execute_script(PLACE_OF_A_MARK, element)
    ActionChains(browser).move_to_element_with_offset(element, x - 3, y).perform()
    ActionChains(browser).move_to_element_with_offset(element, x, y).perform()
    answer = "return arguments[0].querySelector('.hoverlayer').textContent"
    return str(WebDriverWait(browser, 10).until(lambda b: b.execute_script(answer, element)))


SHOW = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"

# The place of a median (or a cell) from the middle of the figure, in pixels.
PLACE_OF_A_MARK = """
const box = arguments[0].getBoundingClientRect(), layout = arguments[0]._fullLayout;
const trace = arguments[0]._fullData.find(t => t.visible === true && t.hoverinfo !== 'skip'
  && (t.type === 'heatmap' || t.customdata || t.error_x?.array));
const half = Math.floor((trace.x ?? []).length / 2);
const axes = [layout.xaxis, layout.yaxis];
const at = trace.type === 'heatmap' ? [0, 0] : [trace.x[half], trace.y[half]];
const [x, y] = axes.map((axis, i) => axis._offset + axis.d2p(at[i]));
return [Math.round(x - box.width / 2), Math.round(y - box.height / 2)];
"""


def test_a_legend_hides_and_shows_a_normalizer(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["plain"], 1280)
    plot = "document.querySelector(\"[data-figure='s0-loss-range-figure']\")"
    count = f"return {plot}.querySelectorAll('.scatterlayer .trace').length"
    click = f"{plot}.closest('figure').querySelector('.chip[aria-pressed=\"false\"]').click()"
    before = browser.execute_script(count)
    browser.execute_script(click)
    assert browser.execute_script(count) == before + 2


def test_four_curves_are_shown_until_more_are_chosen(
    browser: Chrome, pages: dict[str, Path]
) -> None:
    visit(browser, pages["many"], 1280)
    figure = browser.find_element("css selector", "#s0-training figure")
    count = figure.find_element("css selector", ".count")
    assert "4 of 8 curves are shown" in count.text
    shown = "return arguments[0].querySelectorAll('.scatterlayer .trace').length"
    assert browser.execute_script(shown, figure) == 2 * 4
    names = [chip.text for chip in figure.find_elements("css selector", "[aria-pressed='true']")]
    assert {"none", "batch"} < set(names)
    for chip in figure.find_elements("css selector", "[aria-pressed='false']"):
        browser.execute_script("arguments[0].click()", chip)
    assert not count.is_displayed()
    assert browser.execute_script(shown, figure) == 2 * 8
    browser.execute_script("window.openedAs = ''")


def test_the_keyboard_chooses_curves(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["many"], 1280)
    chip = browser.find_element("css selector", "#s0-training .chip[aria-pressed='false']")
    browser.execute_script("arguments[0].focus()", chip)
    chip.send_keys(" ")
    assert chip.get_attribute("aria-pressed") == "true"
    assert browser.switch_to.active_element == chip
    chip.send_keys("\ue007")  # Enter
    assert chip.get_attribute("aria-pressed") == "false"


def test_intervals_answer_under_the_mouse(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["plain"], 1280)
    assert "between" in hovered(browser, "[data-figure='s0-verdict-differences']")


def test_differences_without_numbers_are_said_on_a_phone(
    browser: Chrome, pages: dict[str, Path]
) -> None:
    visit(browser, pages["diverged"], 400)
    plot = browser.find_element("css selector", "[data-figure='s0-verdict-differences']")
    text = browser.execute_script("return arguments[0].textContent", plot)
    assert "no number: runs diverged" in text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    box = plot.rect
    for answer in browser.execute_script(ANNOTATIONS, plot):
        assert answer[0] >= box["x"]
        assert answer[1] <= box["x"] + box["width"] + 1


# The left and right ends of the texts in a figure.
ANNOTATIONS = """
return [...arguments[0].querySelectorAll('.annotation-text')].map(text => {
  const box = text.getBoundingClientRect();
  return [box.left, box.right];
});
"""


def test_links_lead_from_a_question_to_its_section(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["plain"], 400)
    link = browser.find_element("css selector", ".claims a[href='#s0-lr']")
    browser.execute_script("arguments[0].click()", link)
    assert browser.execute_script("return document.querySelector(':target').id") == "s0-lr"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_normalizer_has_one_colour_in_the_legend_and_in_figures(
    browser: Chrome, pages: dict[str, Path], scheme: str
) -> None:
    visit(browser, pages["many"], 1280, scheme)
    pairs = browser.execute_script(COLOURS)
    assert len(pairs) > 20
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


# The colour of every curve beside that of its name in the legend.
COLOURS = """
const rgb = (color) => {
  const probe = document.createElement('i');
  document.body.append(probe);
  probe.style.color = color;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
const pairs = [];
for (const chip of document.querySelectorAll(".chip[aria-pressed='true']")) {
  const plot = chip.closest('figure').querySelector('.plot');
  const trace = plot._fullData.find(t => t.meta?.series === Number(chip.dataset.series)
    && t.line.width > 0);
  const swatch = getComputedStyle(chip.querySelector('.swatch')).borderTopColor;
  if (trace) pairs.push([swatch, rgb(trace.line.color)]);
}
return pairs;
"""


def test_a_table_is_copied_as_tab_separated_values(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["plain"], 1280)
    grant: dict[str, Any] = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", grant)
    button = browser.find_elements("css selector", ".verdict .copy")[1]
    browser.execute_script(SHOW, button)
    button.click()
    text = browser.execute_async_script(
        "setTimeout(() => navigator.clipboard.readText().then(arguments[0]), 200)"
    )
    lines = [line.split("\t") for line in text.splitlines()]
    assert lines[0][:2] == ["rank", "normalizer"]
    assert {line[1] for line in lines[1:]} == {"none", "batch", "layer"}


def test_hostile_names_are_shown_and_do_nothing(browser: Chrome, pages: dict[str, Path]) -> None:
    check_opens(browser, pages["hostile"])
    # An alert would make every further command of the driver fail.
    assert browser.title.startswith(HOSTILE[1])
    text = browser.execute_script("return document.body.textContent")
    for name in (*HOSTILE[:4], HOSTILE[4].replace("\u202e", "\\u202e")):
        assert name in text
    assert (
        browser.execute_script("return document.querySelectorAll('img, main script').length") == 0
    )
    assert browser.execute_script("return [...document.querySelectorAll('svg')].length") > 0
    assert (
        browser.execute_script("return document.querySelectorAll('[onload], [onerror]').length")
        == 0
    )


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_readable_on_a_phone(browser: Chrome, pages: dict[str, Path], name: str) -> None:
    visit(browser, pages[name], 400)
    check_drawn(browser)
    if name == "plain":
        assert browser.execute_script(OVERLAPS) == []
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    sizes = browser.execute_script(TEXT_SIZES)
    assert len(sizes) > 100
    assert min(sizes) >= 11


# The font sizes of all elements that show text of their own, in pixels.
TEXT_SIZES = """
const shows = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
return [...document.body.querySelectorAll('*:not(script):not(style):not(noscript)')]
  .filter(e => shows(e) && e.getClientRects().length)
  .map(e => parseFloat(getComputedStyle(e).fontSize));
"""


# Pairs of neighbouring labels of one axis whose boxes touch.
OVERLAPS = """
const found = [];
for (const axis of document.querySelectorAll('.xaxislayer-above, .yaxislayer-above')) {
  const texts = [...axis.querySelectorAll('text')];
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  for (const [i, [name, a]] of boxes.entries()) for (const [other, b] of boxes.slice(i + 1)) {
    if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
      found.push([name, other]);
  }
}
return found;
"""


def test_the_dark_theme_draws_on_dark(browser: Chrome, pages: dict[str, Path]) -> None:
    colour = (
        "return getComputedStyle(document.querySelector('.plot .annotation-text')).fill + "
        "getComputedStyle(document.body).backgroundColor"
    )
    found = []
    for scheme in ("light", "dark"):
        visit(browser, pages["plain"], 1280, scheme)
        found.append(browser.execute_script(colour))
    assert found[0] != found[1]
