"""Every page of the built site in a real browser, wide and narrow: nothing is cut, overlaps or scrolls sideways."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures.browser import BROWSER, NO_BROWSER

sync_playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright drives the browser"
).sync_playwright

ROOT = Path(__file__).parents[2]
COLUMNS = 100
FAULTS = """() => {
  const width = document.documentElement.clientWidth, faults = [];
  const content = document.querySelector("article"), start = (text) => text.trim().slice(0, 40);
  const visible = (one) => !one.closest("script, style, svg, .mermaid, .headerlink, .md-code__nav, [hidden]");
  if (document.documentElement.scrollWidth > width) faults.push("the page scrolls sideways");
  for (const one of [...content.querySelectorAll("*")].filter(visible)) {
    const style = getComputedStyle(one);
    if (style.display === "inline" || !one.clientWidth) continue;
    if (style.overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1)
      faults.push(`scrolls sideways: ${one.tagName} ${start(one.textContent)}`);
    if (["hidden", "clip"].includes(style.overflowY) && one.scrollHeight > one.clientHeight + 2)
      faults.push(`cut below: ${one.tagName} ${start(one.textContent)}`);
  }
  for (const picture of content.querySelectorAll("img")) {
    if (!picture.naturalWidth) faults.push(`no picture at ${picture.getAttribute("src")}`);
    if (!picture.alt) faults.push(`no alternative text: ${picture.getAttribute("src")}`);
  }
  const boxes = [], walk = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode, range = document.createRange();
    if (!text.textContent.trim() || !visible(text.parentElement)) continue;
    range.selectNodeContents(text);
    for (const box of range.getClientRects()) {
      if (box.width < 2 || box.height < 2) continue;
      const outside = box.right > width + 1 || box.left < -1;  // spaces at the end of a line of code may be
      if (outside && !text.parentElement.closest("pre")) faults.push(`outside: ${start(text.textContent)}`);
      boxes.push([start(text.textContent), box]);
    }
  }
  boxes.sort(([, a], [, b]) => a.top - b.top);
  boxes.forEach(([text, a], place) => {
    for (let next = place + 1; next < boxes.length && boxes[next][1].top < a.bottom - 2; next++) {
      const [other, b] = boxes[next];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 2 && down > 0.4 * Math.min(a.height, b.height)) faults.push(`overlap: ${text} / ${other}`);
    }
  });
  return [...new Set(faults)];
}"""


def test_code_of_the_pages_fits_beside_both_menus() -> None:
    """A line of code has at most 100 characters, a line with an address in it aside."""
    long = [
        (page.relative_to(ROOT).as_posix(), line)
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for language, block in re.findall(
            r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        )
        if language != "mermaid"
        for line in block.splitlines()
        if len(line) > COLUMNS and "://" not in line
    ]
    assert long == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow("a browser, two hundred pages")
@pytest.mark.timeout(600)
@pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
@pytest.mark.parametrize("width", [1400, 390])
def test_no_page_of_the_site_is_cut_or_scrolls_sideways(site: Path, width: int) -> None:
    """Text, code, tables and pictures; diagrams are drawn by a script from elsewhere, which is not fetched here."""
    faults: dict[str, list[str]] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.route(re.compile("^https?:"), lambda route: route.abort())
        for file in sorted(site.rglob("index.html")):
            page.goto(file.as_uri())
            faults[file.parent.relative_to(site).as_posix()] = page.evaluate(FAULTS)
        browser.close()
    assert len(faults) > 100
    assert {page: found for page, found in faults.items() if found} == {}
