"""Take the pictures of the chat page for docs/how-to/serve.md, in a headless Chromium, from the recipes' documents.

python docs/pictures.py

The calls on the page of costs are examples, recorded here; everything else is what the server answers.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.serve.config import EngineConfig, ServeConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.server import Process

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
DOCUMENTS = [ROOT / "recipes" / name / "documents" for name in ("healthcare", "financial-documents")]
QUESTIONS = (
    "How is botulism treated?",
    "How long may an insulin pen in use be kept at room temperature?",
    "Who won the 2030 World Cup?",
)
DAY_S = 86_400


def open_engine(config: EngineConfig) -> PresetEngine:
    """An engine over the recipes' documents, with a month of example calls."""
    engine = build(config.preset, storage=config.storage)
    folder = Path(config.storage) / "documents"
    for documents in DOCUMENTS:
        shutil.copytree(documents, folder, dirs_exist_ok=True)
    engine.ingest(folder, show_progress=False)
    for day in range(30):
        for model, calls in (("gpt-5-mini", 9 + day * 7 % 11), ("gpt-5", 1 + day * 5 % 4)):
            for _ in range(calls):
                engine.ledger.record(
                    kind="llm", provider="openai", model=model, prompt_tokens=1_400, completion_tokens=180,
                    latency_ms=1_100, preset=config.preset, timestamp_us=int((time.time() - day * DAY_S) * 1e6),
                )  # fmt: skip
    return engine


@contextmanager
def served(folder: str) -> Iterator[str]:
    """Address of a server."""
    config = ServeConfig(engines={"clinic": EngineConfig(preset="healthcare", storage=folder)}, port=0)
    process = Process(config, engines=Engines(open_engine))
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        while thread.is_alive() and httpx.get(f"{process.url}/readyz").status_code != 200:
            time.sleep(0.2)
        yield process.url
    finally:
        process.stop()
        thread.join()


def ask(page: Page, question: str) -> Any:
    """Ask, and wait for the end of the answer."""
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(".facts").wait_for()
    return turn


def take(page: Page, name: str) -> None:
    """Keep a picture in as few colours as look the same."""
    page.wait_for_timeout(400)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    image = Image.open(path).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Ask what the pictures show."""
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, served(folder) as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(url)
        ask(page, QUESTIONS[0])  # the first one opens files
        page.get_by_role("button", name="New conversation").click()
        for question in QUESTIONS:
            ask(page, question)
        page.locator("button.cite").first.click()
        page.locator("mark").first.wait_for()
        take(page, "chat")
        page.get_by_role("button", name="New conversation").click()
        turn = ask(page, "Which plants were added, and why did prices rise in spring?")
        turn.locator("button.cite").first.click()
        page.locator(".box").first.wait_for()
        take(page, "chat-pdf")
        page.get_by_role("link", name="Costs").click()
        page.locator("svg.chart").wait_for()
        take(page, "chat-costs")
        telephone = browser.new_page(viewport={"width": 390, "height": 760}, color_scheme="dark")
        telephone.goto(url)
        for question in QUESTIONS[1:]:
            ask(telephone, question)
        take(telephone, "chat-telephone")
        browser.close()


if __name__ == "__main__":
    main()
