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
    hostile = star(["none", "batch", *HOSTILE], seeds=(0, 1), subject=HOSTILE[0], data=HOSTILE[3])
    regression = {"subject": "deep-linear", "data": "gaussian", "task": "regression"}
    hostile += [record(norm=n, lr=lr, **regression) for n in ("none", "batch") for lr in (0.1, 1.0)]
    found = {
        "plain": build(plain, title="mlp-relu on digits", command="anynorm study"),
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


def test_a_table_is_copied_as_tab_separated_values(browser: Chrome, pages: dict[str, Path]) -> None:
    visit(browser, pages["plain"], 1280)
    grant: dict[str, Any] = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", grant)
    button = browser.find_element("css selector", ".verdict .copy")
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
