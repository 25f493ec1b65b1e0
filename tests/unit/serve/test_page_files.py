"""Files of the chat page, its policy, and the pictures of pages: what needs no browser to be told."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from PIL import Image
from reportlab.pdfgen import canvas
from tests.unit.serve.conftest import Running, add_keys, config_of, running

from llama_index_presets.serve.app import PAGE

ROOT = Path(__file__).parents[3]
FILES = sorted(PAGE.iterdir())


def test_the_page_is_in_the_wheel() -> None:
    """Every file of it, where the server looks for it."""
    builder = WheelBuilder(str(ROOT))
    included = {one.distribution_path for one in builder.recurse_included_files()}
    assert {f"llama_index_presets/serve/page/{file.name}" for file in FILES} <= included


def test_the_policy_of_the_page_allows_its_own_files_alone(server: Running) -> None:
    """No inline script or style, no evaluation, no frame, no form, no other host, no markup from texts."""
    with server.client() as client:
        policy = client.get("/").headers["content-security-policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert (rules["script-src"], rules["style-src"], rules["connect-src"]) == (
            "'self'",
            "'self'",
            "'self'",
        )
        assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
        assert "unsafe" not in policy and "http" not in policy and "data:" not in policy


def test_the_files_are_served_by_their_type_and_nothing_else(server: Running) -> None:
    """Scripts as scripts; no listing, and no way out of the folder."""
    with server.client() as client:
        for file in FILES:
            assert client.get(f"/page/{file.name}").status_code == 200
        assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
        for path in ("/page/", "/page", "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py"):
            assert client.get(path, follow_redirects=False).status_code in (307, 404)


def test_the_page_has_nothing_inline_and_names_no_other_host() -> None:
    """What the policy would refuse is not written: no script, style or handler in the markup, no address elsewhere."""
    markup = (PAGE / "index.html").read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", markup) == []
    namespace = "http://www.w3.org/2000/svg"
    for file in FILES:
        text = file.read_text("utf-8").replace(namespace, "")
        assert re.findall(r"https?://|//[a-z]+\.", text) == [], file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
            file.name
        )


# -- pictures of pages ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str], Path]]:
    """A PDF of two pages that belongs to the tenant acme."""
    folder = tmp_path_factory.mktemp("pictures")
    keys = add_keys(folder / "keys.json", {"ada": {"tenant": "acme"}, "bob": {"tenant": "globex"}})
    with running(config_of(folder, keys=str(folder / "keys.json"))) as one:
        path = two_pages(folder / "birds.pdf")
        one.engine.for_tenant("acme").ingest([path], show_progress=False)
        two_pages(folder / "secret.pdf")
        yield one, keys, path


def two_pages(path: Path) -> Path:
    page = canvas.Canvas(str(path), pagesize=(600, 800))
    for text in ("Sparrows eat seeds.", "Owls hunt mice."):
        page.drawString(72, 700, text)
        page.showPage()
    page.save()
    return path


def asked(server: Running, key: str | None, **body: Any) -> Any:
    with server.client(key) as client:
        return client.post("/document-page", json=body)


def test_a_page_is_drawn_for_who_sees_a_passage_on_it(tenants: tuple[Running, dict[str, str], Path]) -> None:
    """A PNG in the proportions of the page, whose size in points is told."""
    server, keys, path = tenants
    response = asked(server, keys["ada"], document=str(path), page="2")
    assert response.headers["content-type"] == "image/png"
    assert (response.headers["page-width"], response.headers["page-height"]) == ("600", "800")
    picture = Image.open(io.BytesIO(response.content))
    assert picture.height / picture.width == pytest.approx(800 / 600, abs=0.01)


def test_a_page_is_drawn_for_nobody_else(tenants: tuple[Running, dict[str, str], Path]) -> None:
    """Another tenant, a page that is not there, a file beside it that was never ingested, a folder, no key."""
    server, keys, path = tenants
    bodies = [
        ("bob", path, "2"),
        ("ada", path, "3"),
        ("ada", path.with_name("secret.pdf"), "1"),
        ("ada", path.parent, "1"),
    ]
    for who, document, page in bodies:
        response = asked(server, keys[who], document=str(document), page=page)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "page_not_found")
    assert asked(server, None, document=str(path), page="2").status_code == 401


def test_a_file_that_is_gone_or_damaged_is_said(tmp_path: Path) -> None:
    """The index knows the page, the disk does not: 404 with the reason, and without the path."""
    with running(config_of(tmp_path)) as server:
        path = two_pages(tmp_path / "birds.pdf")
        server.engine.ingest([path], show_progress=False)
        path.write_bytes(b"%PDF-1.4 broken")
        broken = asked(server, None, document=str(path), page="1").json()["error"]
        path.unlink()
        gone = asked(server, None, document=str(path), page="1").json()["error"]
    assert (broken["code"], gone["code"]) == ("page_not_drawn", "file_gone")
    assert str(tmp_path) not in broken["message"] + gone["message"]


def test_the_server_says_who_asks(tenants: tuple[Running, dict[str, str], Path]) -> None:
    """So that a page can leave out what the caller may not do."""
    server, keys, _ = tenants
    with server.client(keys["ada"]) as client:
        assert client.get("/engines").json()["caller"] == {"name": "ada", "read_only": False}
