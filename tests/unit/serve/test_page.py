"""The chat page in a real browser: asking, citations, uploads, costs, refusals, hostile texts, keyboard, telephone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen
from reportlab.pdfgen import canvas
from tests.fixtures.browser import BROWSER, NO_BROWSER
from tests.unit.serve.conftest import PaidLLM, Running, add_keys, config_of, opener, running, wait_for

from llama_index_presets.monitor.quality import quality
from llama_index_presets.serve.config import EngineConfig

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

pytestmark = [
    pytest.mark.slow("a browser: half a minute"),
    pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER),
]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ANSWERS = {
    "hours": "Cats purr 99 <b>hours</b> a day. [1]",
    "cats": "**Cats purr all day.** [1]",
    "zzz": "I don't know.",
    "list": "Two kinds:\n\n- one `x` [1]\n- two\n\n| a | b |\n|---|---|\n| 1 | <b>2</b> |\n\n```\na < b && c\n```",
}


class PromptedLLM(PaidLLM):
    """Answers by a word of the question; slowly where asked to, and not at all."""

    def _said(self, prompt: str) -> str:
        question = prompt.rsplit("Question:", 1)[-1]
        if "broken" in question:
            raise RuntimeError("secret of the model")
        return next((says for word, says in ANSWERS.items() if word in question), "Yes [1].")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._said(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        says, slow = self._said(prompt), "slowly" in prompt.rsplit("Question:", 1)[-1]

        def pieces() -> CompletionResponseGen:
            for place in range(0, len(says), 5):
                time.sleep(0.15 if slow else 0)
                yield CompletionResponse(text=says[: place + 5], delta=says[place : place + 5])

        return pieces()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One engine without keys, with a PDF and a hostile document."""
    folder = tmp_path_factory.mktemp("page")
    with running(config_of(folder), opener(PromptedLLM)) as one:
        one.engine.ingest([pdf(folder / "birds.pdf")], show_progress=False)
        one.engine.ingest([Document(text=f"Foxes {HOSTILE} run.", id_=HOSTILE)], show_progress=False)
        yield one


def pdf(path: Path) -> Path:
    """Two pages; the second says one line at 72, 100 points from the upper left."""
    page = canvas.Canvas(str(path), pagesize=(600, 800))
    page.drawString(72, 700, "Sparrows eat seeds in the garden.")
    page.showPage()
    page.drawString(72, 700, "Owls hunt mice in the forest by night.")
    page.showPage()
    page.save()
    return path


@pytest.fixture
def opened(browser: Any, server: Running) -> Iterator[Callable[..., Any]]:
    """Opens pages, each in a profile of its own; fails for errors of scripts, and for requests to anywhere else."""
    contexts, faults = [], []

    def open_page(url: str = server.url, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 800}, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: faults.append(message.text) if "Content Security" in message.text else None,
        )
        page.on("request", lambda one: None if one.url.startswith((url, "blob:")) else faults.append(one.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def ask(page: Any, question: str, *, until: str = ".facts, .problem") -> Any:
    """Ask, and wait for the end of the answer; gives its element."""
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(until).first.wait_for()
    return turn


def fits(page: Any) -> bool:
    """Whether nothing stands out of the window at its side, and nothing scrolls sideways but wide tables and code."""
    stands_out = """one => {
      if (one.closest('.hidden, pre, .wide, svg, [hidden], dialog:not([open])')) return false;
      const box = one.getBoundingClientRect();
      return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1);
    }"""
    out = page.evaluate(
        f"[...document.querySelectorAll('body *')].filter({stands_out}).map(one => one.outerHTML)"
    )
    return out == [] and page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# -- questions and citations ------------------------------------------------------------------------------------------


def test_an_answer_comes_with_its_citation_cost_and_time(opened: Callable[..., Any]) -> None:
    """Markdown is drawn, the number opens the passage with the cited words marked, and the bill is beneath."""
    page = opened()
    turn = ask(page, "What do cats do all day?")
    assert turn.locator("strong").inner_text() == "Cats purr all day."
    assert re.search(r"\d s[\s·]*\$0\.00\d+", turn.locator(".facts").inner_text())
    turn.get_by_role("button", name="Citation 1: cats.txt").click()
    panel = page.get_by_role("complementary")
    assert panel.get_by_role("heading").inner_text() == "[1] cats.txt"
    assert panel.locator(".passage-text").inner_text() == "Cats purr all day."


def test_a_figure_that_is_not_in_what_is_cited_is_told_below_the_answer(opened: Callable[..., Any]) -> None:
    """With its sentence, as text; an answer whose figures stand there has no such list."""
    page = opened()
    turn = ask(page, "How many hours do cats purr all day?")
    told = turn.get_by_role("list", name="Figures to check")
    assert told.inner_text() == "Not in what it cites: 99 (“Cats purr 99 <b>hours</b> a day.”)"
    assert fits(page)
    held = ask(opened(), "What do cats do all day?")
    assert held.get_by_role("list", name="Figures to check").count() == 0


def test_the_answer_is_seen_while_it_is_written_and_can_be_stopped(
    opened: Callable[..., Any], server: Running
) -> None:
    """Text before the bill, then Stop: no bill on the page, the server's thread ends, and one can ask again."""
    page = opened()
    turn = ask(page, "What do cats do, slowly?", until=".body:not(:empty)")
    assert turn.locator(".answer").get_attribute("aria-busy") == "true"
    page.get_by_role("button", name="Stop").click()
    turn.get_by_text("Stopped").wait_for()
    assert turn.locator("button.cite").count() == 0
    wait_for(lambda: server.process.server.answers.slots.taken == 0)
    assert ask(page, "What do cats do all day?").locator("button.cite").count() == 1


def test_a_page_of_a_pdf_is_shown_with_the_cited_line_marked(opened: Callable[..., Any]) -> None:
    """The box lies on the line: 72 points from the left of 600, about 100 from the top of 800."""
    ANSWERS["owls"] = "Owls hunt mice in the forest by night. [1]"
    page = opened()
    ask(page, "What do owls hunt in the forest by night?").locator("button.cite").click()
    figure = page.locator("figure.pdf")
    figure.locator(".box").wait_for()
    assert page.locator("mark").inner_text() == "Owls hunt mice in the forest by night."
    assert figure.get_by_role("img").get_attribute("alt") == "Page 2 of birds.pdf"
    whole, box = figure.locator("img").bounding_box(), figure.locator(".box").bounding_box()
    assert (box["x"] - whole["x"]) / whole["width"] == pytest.approx(72 / 600, abs=0.01)
    assert (box["y"] - whole["y"]) / whole["height"] == pytest.approx(91 / 800, abs=0.01)


def test_not_knowing_is_shown_as_such(opened: Callable[..., Any]) -> None:
    """No confidence and no citation, but a badge, and the closest passages, which can be opened."""
    page = opened()
    turn = ask(page, "Do dogs zzz at night?")
    assert turn.get_by_text("No answer found").count() == 1
    assert turn.locator("button.cite").count() == 0
    closest = turn.get_by_role("region", name="Closest passages")
    words = closest.locator("li p").first.inner_text()
    closest.get_by_role("button").first.click()
    assert words in page.locator("#passage-body").inner_text()
    assert "confident" not in turn.locator(".facts").inner_text()


def test_an_answer_is_rated_and_the_last_press_counts(opened: Callable[..., Any], server: Running) -> None:
    """Two named buttons beneath each answer, of which one is pressed; the engine keeps it. A refusal presses none."""
    page = opened()
    ask(page, "What do cats do all day?")
    ask(page, "What do owls hunt by night?")
    first, second = page.locator(".turn").nth(0), page.locator(".turn").nth(1)
    pressed = lambda turn: [  # noqa: E731
        turn.get_by_role("button", name=f"{kind} answer").get_attribute("aria-pressed")
        for kind in ("Good", "Bad")
    ]
    before = thumbs(server)
    assert (pressed(first), pressed(second)) == (["false", "false"], ["false", "false"])
    first.get_by_role("button", name="Good answer").click()
    first.locator('[aria-pressed="true"]').wait_for()
    second.get_by_role("button", name="Bad answer").focus()
    page.keyboard.press("Enter")
    second.locator('[aria-pressed="true"]').wait_for()
    assert (pressed(first), pressed(second)) == (["true", "false"], ["false", "true"])
    assert thumbs(server) == (before[0] + 1, before[1] + 1)
    first.get_by_role("button", name="Bad answer").click()
    wait_for(lambda: pressed(first) == ["false", "true"])
    assert thumbs(server) == (before[0], before[1] + 2)
    page.route("**/feedback", lambda route: route.abort())
    second.get_by_role("button", name="Good answer").click()
    page.get_by_text("cannot be reached").wait_for()
    assert pressed(second) == ["false", "true"]


def thumbs(server: Running) -> tuple[int, int]:
    """Answers called good and bad, as the engine keeps them."""
    kept = quality(Path(server.engine.explain()["state"]), since=0.0)
    return kept.up, kept.down


def test_a_question_may_refer_to_the_one_before(opened: Callable[..., Any]) -> None:
    """The conversation is sent along, and a new one begins empty."""
    page, sent = opened(), []
    page.on("request", lambda one: sent.append(one.post_data_json) if "stream" in one.url else None)
    ask(page, "What do cats do all day?")
    ask(page, "What do cats do at night?")
    assert [len(body["history"]) for body in sent] == [0, 2]
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".turn").count() == 0
    ask(page, "What do cats do all day?")
    assert len(sent[2]["history"]) == 0


def test_two_tabs_are_two_conversations(browser: Any, opened: Callable[..., Any]) -> None:
    """Both stream at the same time, each its own answer."""
    first = opened()
    second = first.context.new_page()
    second.goto(first.url)
    slow = ask(first, "What do cats do, slowly?", until=".body:not(:empty)")
    fast = ask(second, "A list of dogs that bark at night?")
    slow.locator(".facts").wait_for()
    assert (first.locator(".turn").count(), second.locator(".turn").count()) == (1, 1)
    assert slow.locator("strong").inner_text() == "Cats purr all day."
    assert fast.locator("li").count() >= 2


def test_markdown_is_drawn_and_html_stays_text(opened: Callable[..., Any]) -> None:
    """Lists, tables and code are elements; a tag in a cell or in code is what was written."""
    turn = ask(opened(), "A list of dogs that bark at night?")
    assert [item.inner_text() for item in turn.locator(".body li").all()] == [
        "one x 1",
        "two",
    ]
    assert turn.locator("td").all_inner_texts() == ["1", "<b>2</b>"]
    assert turn.locator("pre").inner_text().strip() == "a < b && c"


def test_the_page_works_below_a_path(browser: Any, server: Running) -> None:
    """An application that mounts the server, or a proxy: the page finds its files and routes beside itself."""
    page, asked = browser.new_page(), []
    page.on("request", lambda one: asked.append(one.url))
    page.route(
        f"{server.url}/help/**", lambda route: route.continue_(url=route.request.url.replace("/help", ""))
    )
    page.goto(f"{server.url}/help/")
    assert ask(page, "What do cats do all day?").locator("button.cite").count() == 1
    assert [url for url in asked if not url.startswith(f"{server.url}/help/")] == []
    page.close()


# -- hostile texts ----------------------------------------------------------------------------------------------------


def test_hostile_texts_are_text(opened: Callable[..., Any]) -> None:
    """Question, answer, source, heading and passage with markup and scripts: nothing runs, loads or becomes an element.

    The answer is handed to the page as it is, since the server would have taken links and tags out of it.
    """
    page = opened()
    link = (
        "[link](javascript:document.title='owned') ![](https://evil.example/leak.png) <https://evil.example>"
    )
    citation = {
        "n": 1,
        "source": HOSTILE,
        "page": HOSTILE,
        "heading": HOSTILE,
        "text": f"Foxes {HOSTILE} run.",
    }
    cited = {"quote": HOSTILE, "spans": [{"node_id": "n", "start": 6, "end": 6 + len(HOSTILE)}]}
    bill = {
        "answer": f"{HOSTILE} {link} [1]",
        "known": True,
        "citations": [citation | cited],
        "cost_usd": 0,
        "latency_ms": 1,
    }
    stream = "".join(
        f"event: {name}\ndata: {json.dumps(data)}\n\n"
        for name, data in (("sources", {"sources": []}), ("text", {"text": bill["answer"]}), ("bill", bill))
    )
    page.route("**/query/stream", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))
    turn = ask(page, f"Foxes {HOSTILE}")
    assert turn.locator(".question").inner_text() == f"Foxes {HOSTILE}"
    assert turn.locator(".body").inner_text().startswith(f"{HOSTILE} {link}")
    turn.locator("button.cite").click()
    assert page.locator(".passage-text").inner_text() == f"Foxes {HOSTILE} run."
    assert page.locator("mark").inner_text() == HOSTILE
    assert page.locator("#passage-place").inner_text() == f"Page {HOSTILE} · {HOSTILE}"
    assert page.locator("body img, body script, .turn a, aside a").count() == 0
    assert page.title() == "Ask your documents"


def test_hostile_names_of_documents_and_files_are_text(opened: Callable[..., Any], server: Running) -> None:
    """An id with markup in the list, and a file whose name is refused."""
    page = opened()
    page.get_by_role("link", name="Documents").click()
    page.locator("#documents .file-name", has_text="script>").wait_for()
    page.locator("#files").set_input_files(
        [{"name": "<img src=x onerror=alert(1)>.txt", "mimeType": "text/plain", "buffer": b"x"}]
    )
    page.locator(".job.bad").wait_for()
    assert "file name is not usable" in page.locator(".job").inner_text()
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "Documents"


def test_scripts_in_the_page_are_refused(browser: Any, server: Running) -> None:
    """The policy allows no inline script, no evaluation, no markup from texts, and no other host."""
    page = browser.new_page()
    page.goto(server.url)
    with pytest.raises(playwright.Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    with pytest.raises(playwright.Error, match="TrustedScript"):
        page.evaluate("document.createElement('script').text = 'document.title = 1'")
    blocked = """() => new Promise(done => {
      document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      fetch('https://evil.example/').catch(() => {});
    })"""
    assert page.evaluate(blocked) == "connect-src"
    page.close()


# -- documents --------------------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_listed_cited_and_deleted(opened: Callable[..., Any]) -> None:
    """Its job is followed to the end; then it is in the list, answers a question, and goes when that is confirmed."""
    page = opened()
    page.get_by_role("link", name="Documents").click()
    upload = {"name": "zebras.txt", "mimeType": "text/plain", "buffer": b"Zebras graze on the plain."}
    page.locator("#files").set_input_files([upload])
    page.locator(".job.good").wait_for()
    row = page.locator("#documents tr", has_text="zebras.txt")
    row.wait_for()
    page.get_by_role("link", name="Chat").click()
    assert "zebras.txt" in ask(page, "Where do zebras graze on the plain?").locator(".sources").inner_text()
    page.get_by_role("link", name="Documents").click()
    row.get_by_role("button", name="Delete zebras.txt").click()
    page.get_by_role("button", name="Keep").click()
    assert row.count() == 1
    row.get_by_role("button", name="Delete zebras.txt").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")


def test_a_job_is_followed_through_a_server_that_is_away(opened: Callable[..., Any]) -> None:
    """Once asked too often and once not there: the row waits, and ends as the job does."""
    page, away = opened(), [429, 0]

    def answer(route: Any) -> None:
        if not away:
            route.continue_()
        elif status := away.pop(0):
            route.fulfill(status=status, json={"error": {"message": "too often", "code": "rate_limited"}})
        else:
            route.abort()

    page.route("**/ingest/*", answer)
    page.get_by_role("link", name="Documents").click()
    upload = {"name": "moles.txt", "mimeType": "text/plain", "buffer": b"Moles dig."}
    page.locator("#files").set_input_files([upload])
    page.locator(".job.good").wait_for()
    assert away == []


def test_an_upload_that_is_listed_before_its_reply_has_one_row(
    opened: Callable[..., Any], server: Running
) -> None:
    """The list shows the job; the reply to the upload, held back here, brings the name of the file."""
    page = opened()
    with server.client() as client:
        before = {job["id"] for job in client.get("/ingest").json()["jobs"]}

    def as_running(route: Any) -> None:
        if route.request.method != "GET":
            return route.continue_()
        response = route.fetch()
        jobs = [job | {"status": "running"} for job in response.json()["jobs"] if job["id"] not in before]
        return route.fulfill(response=response, json={"jobs": jobs})

    page.route(re.compile(r"/ingest(\?.*)?$"), as_running)
    page.evaluate(
        """() => {
          const listen = XMLHttpRequest.prototype.addEventListener;
          window.replies = [];
          XMLHttpRequest.prototype.addEventListener = function (kind, heard) {
            listen.call(this, kind, kind === 'loadend' ? () => window.replies.push(heard) : heard);
          };
        }"""
    )
    page.get_by_role("link", name="Documents").click()
    upload = {"name": "voles.txt", "mimeType": "text/plain", "buffer": b"Voles burrow."}
    page.locator("#files").set_input_files([upload])
    deadline = time.monotonic() + 30
    while (
        not page.evaluate("window.replies.length") and time.monotonic() < deadline
    ):  # the page forbids eval()
        page.wait_for_timeout(20)
    page.get_by_role("link", name="Chat").click()
    page.get_by_role("link", name="Documents").click()
    page.locator(".job", has_text="document").wait_for()
    page.evaluate("window.replies.forEach((heard) => heard())")
    page.locator(".job.good", has_text="voles.txt").wait_for()
    assert page.locator(".job").count() == 1


def test_dropped_files_are_uploaded_and_a_bad_one_says_why(opened: Callable[..., Any]) -> None:
    """Dropped anywhere; the job names the file that could not be read."""
    page = opened()
    page.evaluate(
        """() => {
          const carried = new DataTransfer();
          carried.items.add(new File(['Lions roar.'], 'lions.txt', {type: 'text/plain'}));
          carried.items.add(new File(['%PDF-1.4 broken'], 'broken.pdf', {type: 'application/pdf'}));
          document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true, cancelable: true}));
        }"""
    )
    page.locator(".job.bad").wait_for()
    assert "broken.pdf:" in page.locator(".job-details").inner_text()
    page.locator("#documents tr", has_text="lions.txt").wait_for()
    page.get_by_label("Filter by name").fill("LIONS")
    assert page.locator("#documents tr").count() == 1


def test_costs_have_a_chart_with_words_for_it(opened: Callable[..., Any]) -> None:
    """A bar for each day, an alternative text, the same as a table, and a row for each model."""
    page = opened()
    ask(page, "What do cats do all day?")
    page.get_by_role("link", name="Costs").click()
    chart = page.locator("svg.chart")
    chart.wait_for()
    assert chart.locator("rect").count() == 30
    assert re.match(r"Cost by day, .* most on \d{4}-\d\d-\d\d: \$0\.0", chart.get_attribute("aria-label"))
    assert page.locator(".models tbody tr", has_text="gpt-4o-mini").count() == 1
    page.get_by_label("Period").select_option("7 days")
    wait_for(lambda: chart.locator("rect").count() == 7)


# -- keys and refusals ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server with keys and two engines; one that answers, one whose model fails."""
    folder = tmp_path_factory.mktemp("keyed")
    callers = {
        "ada": {},
        "poor": {"budget": "0.0000001/day"},
        "reader": {"read_only": True},
        "hasty": {"rate": "3/hour"},
    }
    keys = add_keys(folder / "keys.json", callers)
    engines = {
        name: EngineConfig(preset="knowledge-base", storage=str(folder / name)) for name in ("kb", "hr")
    }
    config = config_of(folder, keys=str(folder / "keys.json"), engines=engines)
    with running(config, opener(PromptedLLM), sums=folder / "sums") as one:
        yield one, keys


def enter(page: Any, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use key").click()


def test_a_key_is_asked_for_and_kept_in_the_tab(
    opened: Callable[..., Any], keyed: tuple[Running, dict[str, str]]
) -> None:
    """A wrong key is asked for again with the reason; the right one survives a reload and is in no address."""
    server, keys = keyed
    page, addresses = opened(server.url), []
    page.on("request", lambda one: addresses.append(one.url))
    enter(page, "lp-000000000000-wrong")
    page.get_by_text("The API key is not known").wait_for()
    enter(page, keys["ada"])
    page.get_by_label("Engine").wait_for()
    page.reload()
    assert ask(page, "What do cats do all day?").locator("button.cite").count() == 1
    assert page.get_by_label("Engine").locator("option").all_inner_texts() == ["kb", "hr"]
    assert not any(keys["ada"] in address for address in addresses)
    other = page.context.new_page()
    other.goto(server.url)
    other.get_by_role("dialog").wait_for()
    page.get_by_role("button", name="Forget key").click()
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0


def test_a_key_that_was_not_given_is_asked_for_with_the_question(
    opened: Callable[..., Any], keyed: tuple[Running, dict[str, str]]
) -> None:
    """Cancelled at first: the question asks for it again, is then answered, and the engines are listed."""
    server, keys = keyed
    page = opened(server.url)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Question").fill("What do cats do all day?")
    page.keyboard.press("Enter")
    enter(page, keys["ada"])
    page.locator(".turn .facts").wait_for()
    page.get_by_label("Engine").wait_for()


@pytest.mark.parametrize(
    ("caller", "question", "title", "says"),
    [
        ("poor", "What do cats do all day?", "The budget is used up", "It resets at"),
        ("ada", "Are cats broken all day?", "No answer", "Its log says where"),
        ("hasty", "What do cats do all day?", "Too many questions", "Try again in"),
    ],
)
def test_a_refusal_says_why_and_offers_the_question_again(
    opened: Callable[..., Any],
    keyed: tuple[Running, dict[str, str]],
    caller: str,
    question: str,
    title: str,
    says: str,
) -> None:
    """Budget, failed model, rate: as an alert, without a secret; the question can be asked again."""
    server, keys = keyed
    page = opened(server.url)
    enter(page, keys[caller])
    page.get_by_label("Engine").wait_for()
    for _ in range(3 if caller == "hasty" else 1):
        turn = ask(page, question)
    alert = turn.get_by_role("alert").inner_text()
    assert title in alert and says in alert and "secret" not in alert
    turn.get_by_role("button", name="Ask again").click()
    assert page.get_by_label("Question").input_value() == question


def test_a_server_that_is_gone_is_said(opened: Callable[..., Any]) -> None:
    """No network: a sentence instead of a blank page."""
    page = opened()
    page.context.set_offline(True)
    assert "cannot be reached" in ask(page, "What do cats do?").get_by_role("alert").inner_text()


def test_who_may_only_ask_sees_no_upload(
    opened: Callable[..., Any], keyed: tuple[Running, dict[str, str]]
) -> None:
    """A read-only key: no drop zone, no Delete."""
    server, keys = keyed
    page = opened(server.url)
    enter(page, keys["reader"])
    page.get_by_role("link", name="Documents").click()
    page.locator("#documents tr").first.wait_for()
    assert not page.get_by_text("Choose files").is_visible()
    assert page.get_by_role("button", name="Delete").count() == 0


# -- keyboard, telephone, dark ----------------------------------------------------------------------------------------


def test_everything_is_reached_by_keyboard(opened: Callable[..., Any]) -> None:
    """Skip link first; a citation opens by Enter, Escape closes it and gives the focus back; the focus is seen."""
    page = opened()
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "skip":
            break
    assert page.get_by_role("link", name="Skip to content").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_label("Question").focus()
    page.keyboard.type("What do cats do all day?")
    page.keyboard.press("Enter")
    page.locator(".facts").wait_for()
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "cite":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "passage-title"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "cite"
    assert not page.get_by_role("complementary").is_visible()


def test_a_screen_reader_hears_the_answer(opened: Callable[..., Any]) -> None:
    """Every control has a name, each answer is announced once as a whole, landmarks and headings are there."""
    page = opened()
    ask(page, "What do cats do all day?")
    page.locator("#announcer", has_text="Answer: Cats purr all day.").wait_for()
    nameless = """() => [...document.querySelectorAll('button, input, select, textarea, a')].filter(one =>
      !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length)).map(one => one.outerHTML)"""
    assert page.evaluate(nameless) == []
    for role in ("banner", "main", "navigation"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("link", name="Chat").get_attribute("aria-current") == "page"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_of_it(opened: Callable[..., Any], scheme: str) -> None:
    """390 points: nothing is cut off or scrolls sideways, in every view, also with long words and an open passage."""
    page = opened(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    assert fits(page)
    ask(page, f"hostile {'w' * 300} foxes run")
    assert fits(page)
    page.locator("button.cite").click()
    page.get_by_role("complementary").wait_for()
    assert fits(page) and page.evaluate("document.getElementById('main').inert")
    page.get_by_role("button", name="Close the passage").click()
    for view, there in (("Documents", "#documents tr"), ("Costs", "svg.chart")):
        page.get_by_role("link", name=view).click()
        page.locator(there).first.wait_for()
        assert fits(page)


def contrast(page: Any, selector: str) -> float:
    """Contrast of an element's text with what is behind it, as WCAG 2 computes it."""
    colours = page.evaluate(
        """selector => {
          const rgb = text => text.match(/[\\d.]+/g).map(Number);
          const one = document.querySelector(selector);
          let behind = one;
          const clear = () => (rgb(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0;
          while (behind.parentElement && clear()) behind = behind.parentElement;
          return [rgb(getComputedStyle(one).color), rgb(getComputedStyle(behind).backgroundColor)];
        }""",
        selector,
    )
    low, high = sorted(luminance(colour[:3]) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[float]) -> float:
    shares = [value / 255 for value in colour]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(opened: Callable[..., Any], scheme: str) -> None:
    """At least 4.5 to 1 everywhere; the toggle turns the system's theme over and a reload keeps it."""
    page = opened(color_scheme=scheme)
    ask(page, "What do cats do all day?")
    answered = (
        ".question",
        ".body p",
        "button.cite",
        ".facts",
        ".source-number",
        ".primary",
        ".hint",
        "nav a",
    )
    assert {name: contrast(page, name) for name in answered if contrast(page, name) < 4.5} == {}
    page.get_by_role("button", name="New conversation").click()
    ask(page, "Do dogs zzz at night?")
    assert contrast(page, ".badge") >= 4.5
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark theme").click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert before != after == page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (
        page.get_by_role("button", name="Dark theme").get_attribute("aria-pressed")
        == str(scheme == "light").lower()
    )
