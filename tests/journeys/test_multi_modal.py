"""Text and images in one index, from a folder of pictures to cited answers, with a real (tiny, trained) CLIP."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import Document, ImageDocument, ImageNode, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from PIL import Image, PngImagePlugin
from tests.fakes import ScriptedLLM
from tests.tiny_clip import PAIRS, draw, tiny_clip

from llama_index_presets import build
from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.errors import AnswerError, ImageError, SettingsError
from llama_index_presets.presets.engine import PresetEngine

QUESTION = "red circle"


@pytest.fixture(scope="module")
def model() -> ClipEmbedding:
    return ClipEmbedding(str(tiny_clip()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawings, one with a caption beside it, one that describes itself, a page of text, a broken picture."""
    made = tmp_path_factory.mktemp("signs")
    for pair in PAIRS:
        draw(*pair, size=96, seed=5).save(made / f"{'-'.join(pair)}.png")
    (made / "red-square.txt").write_text("The red square covers the fuse box. Open it with the blue key.\n")
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "A green square shows the way out.")
    draw("green", "square", size=96, seed=5).save(made / "green-square.png", pnginfo=info)
    (made / "signs.md").write_text(
        "# Signs\n\n## Yellow triangle\n\nA yellow triangle warns of a hot surface.\n"
    )
    (made / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return made


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, model: ClipEmbedding
) -> Iterator[PresetEngine]:
    with build("multi-modal", storage=tmp_path_factory.mktemp("index") / "s", embed_model=model) as made:
        report = made.ingest(folder)
        assert (report.documents, report.chunks, report.embedded) == (13, 15, 15)
        assert [Path(failure.source).name for failure in report.failed] == ["broken.png"]
        assert "of no known format" in report.failed[0].error
        yield made


def cited(response: Any) -> list[dict[str, Any]]:
    return list(response.metadata["citations"])


def names(response: Any) -> list[str]:
    return [Path(citation["source"]).name for citation in cited(response) if citation["valid"]]


def test_a_text_finds_images(engine: PresetEngine, folder: Path) -> None:
    """The answer names them and cites each with its path, size and score; it says nothing about what they show."""
    response = engine.query(QUESTION)
    best = cited(response)[0]
    assert response.metadata["known"] is True and str(response).startswith(
        "Closest images: red-circle.png [1]"
    )
    assert best["source"] == (folder / "red-circle.png").as_posix() and best["score"] > 0.5
    assert best["image"] == {"path": best["source"], "format": "PNG", "width": 96, "height": 96}
    assert (best["text"], best["page"], best["heading"], best["valid"]) == ("", None, None, True)
    assert isinstance(response.source_nodes[0].node, ImageNode)


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_every_drawing_is_the_first_for_its_words(engine: PresetEngine, pair: tuple[str, str]) -> None:
    """Or the second, where a caption says more."""
    assert f"{'-'.join(pair)}.png" in names(engine.query(" ".join(pair)))[:3]


def test_an_image_finds_images_and_passages(engine: PresetEngine, tmp_path: Path) -> None:
    """Without a word in the question; no LLM is called."""
    asked = tmp_path / "photo.jpg"
    draw("yellow", "triangle", size=300, seed=77).save(asked)
    response = engine.query(QueryBundle("", image_path=str(asked)))
    assert str(response).startswith("Closest images: yellow-triangle.png [1]")
    assert "Closest passages: A yellow triangle warns of a hot surface. [" in str(response)
    assert "signs.md" in names(response)
    kinds = engine.ledger.sql(
        f"select kind from llm_calls where query_id = '{response.metadata['query_id']}' order by 1"
    ).fetchall()
    assert kinds == [("embedding",), ("query",), ("retrieval",)]


def test_an_image_and_a_text_are_asked_together(engine: PresetEngine, folder: Path) -> None:
    """The mean of both: of blue things, the one that is like the picture."""
    response = engine.query(QueryBundle("blue", image_path=str(folder / "blue-triangle.png")))
    assert names(response)[0] == "blue-triangle.png"


def test_a_caption_answers_and_leads_to_its_image(engine: PresetEngine) -> None:
    """The text beside a picture, and the text inside one, are quoted and cited."""
    response = engine.query("What does the red square cover?")
    assert "The red square covers the fuse box. [" in str(response)
    response = engine.query("What shows the way out? green square")
    assert "A green square shows the way out. [" in str(response) and "green-square.png" in names(response)
    caption = engine.with_filters(only("modality", "image", "!=")).query("What does the red square cover?")
    assert names(caption)[0] == "red-square.txt"
    assert Path(caption.source_nodes[0].node.metadata["image_path"]).name == "red-square.png"


def only(key: str, value: str, operator: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])  # type: ignore[arg-type]


def test_filters_hold_for_both_kinds(engine: PresetEngine) -> None:
    """By the metadata that ingest wrote."""
    assert names(engine.with_filters(only("file_name", "blue-circle.png")).query(QUESTION)) == [
        "blue-circle.png"
    ]
    hits = engine.with_filters(only("modality", "image")).retrieve(QueryBundle("yellow triangle"))
    assert hits and all(isinstance(hit.node, ImageNode) for hit in hits)


def test_every_way_to_ask_gives_the_same_answer(engine: PresetEngine, folder: Path) -> None:
    """Sync, async, streamed, chat; with a text and with an image."""
    for question in (QUESTION, QueryBundle("", image_path=str(folder / "blue-circle.png"))):
        expected = str(engine.query(question))
        streaming = engine.stream(question)
        assert "".join(streaming.response_gen) == expected and streaming.metadata["citations"]

        async def awaited(question: Any = question) -> list[str]:
            stream = await engine.astream(question)
            text = "".join([piece async for piece in stream.async_response_gen()])
            return [text, str(await engine.aquery(question))]

        assert asyncio.run(awaited()) == [expected] * 2
    assert str(engine.as_chat_engine().chat(QUESTION)) == str(engine.query(QUESTION))


def test_every_call_is_on_the_bill(engine: PresetEngine) -> None:
    """Images and texts, at ingest and when asked; local, so free, but counted."""
    response = engine.query(QUESTION)
    assert response.metadata["cost_usd"] == 0 and response.metadata["latency_ms"] > 0
    rows = engine.ledger.sql(
        "select kind, model, sum(total_tokens) > 0 from llm_calls where kind = 'embedding' group by all"
    ).fetchall()
    assert rows == [("embedding", "tiny-clip", True)]


def test_a_bad_image_in_a_question_is_named(engine: PresetEngine, folder: Path) -> None:
    """The question fails, the engine does not."""
    with pytest.raises(ImageError, match=r"broken\.png' is of no known format"):
        engine.query(QueryBundle("", image_path=str(folder / "broken.png")))
    with pytest.raises(ImageError, match="nowhere.png' does not exist"):
        engine.query(QueryBundle("", image_path="nowhere.png"))
    with pytest.raises(AnswerError, match="is empty"):
        engine.query(QueryBundle("  "))


def test_re_opening_sync_and_changed_captions(tmp_path: Path, folder: Path, model: ClipEmbedding) -> None:
    """Unchanged costs nothing; a changed caption or picture is read again; one that vanished is forgotten."""
    docs = tmp_path / "docs"
    shutil.copytree(folder, docs)
    (docs / "broken.png").unlink()
    with build("multi-modal", storage=tmp_path / "s", embed_model=model) as engine:
        assert engine.ingest(docs).documents == 13
        first = str(engine.query(QUESTION))
    with build("multi-modal", storage=tmp_path / "s", embed_model=model) as engine:
        again = engine.ingest(docs)
        assert (again.documents, again.unchanged, again.embedded) == (0, 13, 0)
        assert str(engine.query(QUESTION)) == first
        (docs / "red-square.txt").write_text("The red square hides the water tap.")
        draw("blue", "circle", size=80, seed=6).save(docs / "yellow-circle.png")
        (docs / "red-circle.png").unlink()
        report = engine.ingest(docs, sync=True)
        assert (report.documents, report.removed, report.unchanged) == (2, 1, 10)
        assert "water tap" in str(engine.query("What does the red square hide?"))
        assert "red-circle.png" not in names(engine.query(QUESTION))
        assert "yellow-circle.png" in names(engine.query("blue circle"))


def test_documents_and_nodes_of_the_callers(tmp_path: Path, folder: Path, model: ClipEmbedding) -> None:
    """Image documents, image nodes and text documents, side by side; one that cannot be opened fails alone."""
    given = [
        ImageDocument(
            image_path=str(folder / "red-circle.png"),
            text="Stop here.",
            doc_id="stop",
            metadata={"floor": "1"},
        ),
        ImageNode(id_="way-out", image_path=str(folder / "green-square.png"), metadata={"floor": "2"}),
        ImageNode(id_="gone", image_url="https://example.com/a.png"),
        Document(text="Blue circles are obligations.", doc_id="text"),
    ]
    with build("multi-modal", storage=tmp_path / "s", embed_model=model) as engine:
        report = engine.ingest(given)
        assert (report.documents, [failure.source for failure in report.failed]) == (3, ["gone"])
        assert "nothing is fetched" in report.failed[0].error
        hit = engine.retrieve(QueryBundle("green square"))[0].node
        assert isinstance(hit, ImageNode) and (hit.node_id, hit.metadata["floor"]) == ("way-out", "2")
        response = engine.query("red circle")
        assert cited(response)[0]["image"]["path"] == str(folder / "red-circle.png")
        assert engine.ingest(given).unchanged == 3


def test_a_generative_llm_is_shown_names_and_captions(
    tmp_path: Path, folder: Path, model: ClipEmbedding
) -> None:
    """It may cite an image; what it invents is removed."""
    llm = ScriptedLLM(says="It is in red-circle.png [1][9].", prompts=[])
    with build("multi-modal", storage=tmp_path / "s", embed_model=model, llm=llm) as engine:
        engine.ingest(folder)
        response = engine.query(QUESTION)
        assert str(response) == "It is in red-circle.png [1]." and names(response)[:1] == ["red-circle.png"]
        assert "[1] Image: red-circle.png" in llm.prompts[-1]


def test_what_needs_words_is_refused(tmp_path: Path, model: ClipEmbedding) -> None:
    """A cross-encoder or a keyword index has nothing to read in an image."""
    for settings in ({"pattern": "hybrid"}, {"pattern": "advanced"}, {"chunking": "hierarchical"}):
        with pytest.raises(SettingsError, match="takes the pattern 'simple'"):
            build("multi-modal", storage=tmp_path / "s", embed_model=model, settings=settings)


def test_other_presets_say_that_they_read_text_only(tmp_path: Path, folder: Path) -> None:
    """A picture in a folder of text is one document that fails, with the way out; so is a picture in a question."""
    with build("healthcare", storage=tmp_path / "s") as engine:
        report = engine.ingest([folder / "red-circle.png", folder / "signs.md"])
        assert report.documents == 1 and "Use the preset multi-modal" in report.failed[0].error
        with pytest.raises(AnswerError, match="reads text only"):
            engine.query(QueryBundle("", image_path=str(folder / "red-circle.png")))


def test_an_estimate_says_what_ingest_takes(tmp_path: Path, folder: Path, model: ClipEmbedding) -> None:
    """Images have no tokens; captions and pages have; pictures alone can be estimated too."""
    with build("multi-modal", storage=tmp_path / "s", embed_model=model) as engine:
        estimate = engine.estimate(folder)
        alone = engine.estimate(folder / "blue-circle.png")
        report = engine.ingest(folder)
    assert (estimate.documents, estimate.chunks, estimate.tokens) == (13, report.chunks, report.tokens)
    assert (alone.chunks, alone.tokens, alone.cached) == (1, 0, 0) and alone.minutes > 0


# -- the command line, with the weights where the published ones would lie -----------------------------------------


@pytest.fixture
def cached_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from llama_index_presets.embed.clip import embedding as clip

    clip._read_card.cache_clear()
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_clip(), tmp_path / "cache" / "models" / "clip-ViT-B-32")
    yield
    clip._read_card.cache_clear()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from llama_index_presets.cli.app import app

    with pytest.raises(SystemExit) as ended:
        app(args=[str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.usefixtures("cached_weights")
def test_the_command_line_from_files_to_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: Path
) -> None:
    """Ingest, ask with words, ask with a picture; exit code 1 for the picture that is broken."""
    place = ("--storage", tmp_path / "s", "--offline")
    code, out, err = run(capsys, "ingest", "multi-modal", folder, *place, "--json")
    assert code == 1 and json.loads(out)["documents"] == 13 and "broken.png" in err
    code, out, _ = run(capsys, "ask", "multi-modal", QUESTION, *place, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["known"] and answer["citations"][0]["image"]["width"] == 96
    code, out, _ = run(capsys, "ask", "multi-modal", "--image", folder / "blue-square.png", *place)
    assert code == 0 and "Closest images: blue-square.png [1]" in out
    assert "blue-square.png (PNG, 96 × 96), score 1.000" in out
    code, out, err = run(capsys, "ask", "multi-modal", "--image", folder / "nowhere.png", *place)
    assert code == 1 and "nowhere.png' does not exist" in err and len(err.splitlines()) == 1


def test_a_machine_without_weights_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, before anything is read or made."""
    from llama_index_presets.embed.clip import embedding as clip

    clip._read_card.cache_clear()
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    code, out, err = run(capsys, "ingest", "multi-modal", folder, "--storage", tmp_path / "s")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "weights of 'clip-ViT-B-32' are not on this machine" in err and "copy the folder to" in err
    assert not (tmp_path / "s").exists()


def test_a_large_photo_is_one_failed_document(tmp_path: Path, model: ClipEmbedding) -> None:
    """More pixels than are decoded: named, and the rest lands."""
    Image.new("1", (10_000, 9_000)).save(tmp_path / "map.png")
    draw("red", "circle").save(tmp_path / "small.png")
    with build("multi-modal", storage=tmp_path / "s", embed_model=model) as engine:
        report = engine.ingest([tmp_path / "map.png", tmp_path / "small.png"])
    assert report.documents == 1 and "at most 89,478,485 in all" in report.failed[0].error


def test_offline_without_weights_texts_are_answered_and_pictures_are_named(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stand-in that reads text says so; no picture is taken for something else, and none is lost in silence."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (folder_of_texts := tmp_path / "texts").mkdir()
    (folder_of_texts / "press.txt").write_text("The red button stops the press at once.")
    place = ("--storage", tmp_path / "s", "--offline")
    code, out, _ = run(
        capsys, "ingest", "multi-modal", folder_of_texts, folder / "blue-square.png", *place, "--json"
    )
    report = json.loads(out)
    assert code == 1 and report["documents"] == 1 and "pictures are left out" in caplog.text
    assert (
        report["failed"][0]["source"].endswith("blue-square.png")
        and "CLIP's weights" in report["failed"][0]["error"]
    )
    code, out, _ = run(capsys, "ask", "multi-modal", "What does the red button stop?", *place, "--json")
    assert code == 0 and json.loads(out)["citations"][0]["source"].endswith("press.txt")
