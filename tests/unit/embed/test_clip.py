"""CLIP: text and images in one space, from weights in the published format, of images as people have them."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import ImageDocument, ImageNode
from PIL import Image
from tests.tiny_clip import COLOURS, DIM, PAIRS, draw, tiny_clip

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedMultiModalEmbedding
from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.embed.clip.model import PixelRecipe
from llama_index_presets.errors import ImageError, ModelError, SettingsError


@pytest.fixture(scope="module")
def model() -> ClipEmbedding:
    return ClipEmbedding(str(tiny_clip()))


@pytest.fixture(scope="module")
def gallery(model: ClipEmbedding) -> tuple[list[tuple[str, str]], np.ndarray]:
    names = [pair for pair in PAIRS for _ in range(4)]
    drawings = [draw(*pair, size=90, seed=place) for place, pair in enumerate(names)]
    return names, np.array(model.get_image_embedding_batch(drawings))


def found(
    gallery: tuple[list[tuple[str, str]], np.ndarray], vector: list[float], top: int
) -> list[tuple[str, str]]:
    names, vectors = gallery
    return [names[place] for place in np.argsort(-(vectors @ np.array(vector)))[:top]]


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_text_finds_the_images_that_show_it(model: ClipEmbedding, gallery, pair: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    """ "red circle" finds red circles: most of the four nearest of 48 drawings that training never saw."""
    nearest = found(gallery, model.get_query_embedding(" ".join(pair)), 4)
    assert nearest.count(pair) >= 3
    assert {colour for colour, _ in nearest} == {pair[0]}


def test_an_image_finds_its_like_and_its_words(model: ClipEmbedding, gallery) -> None:  # type: ignore[no-untyped-def]
    """Image to image, and image to text."""
    vector = model.get_image_embedding(draw("blue", "triangle", size=200, seed=99))
    nearest = found(gallery, vector, 3)
    assert nearest[0] == ("blue", "triangle") and {colour for colour, _ in nearest} == {"blue"}
    texts = [" ".join(pair) for pair in PAIRS]
    scores = np.array(model.get_text_embedding_batch(texts)) @ np.array(vector)
    assert texts[int(scores.argmax())] == "blue triangle"


def test_vectors_are_those_of_sentence_transformers(model: ClipEmbedding) -> None:
    """The same folder, loaded by the library that published the format, gives the same vectors."""
    pytest.importorskip("torch", reason="compares with what torch computes")
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    texts = ["red circle", "A green square, and something that training never saw: zebra!"]
    stock = SentenceTransformer(str(tiny_clip())).encode(texts, normalize_embeddings=True)
    ours = np.array(model.get_text_embedding_batch(texts))
    assert ours.shape == (2, DIM)
    np.testing.assert_allclose(ours, stock, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)

    images = [draw("red", "circle", size=77), draw("blue", "square", size=120).crop((0, 10, 120, 90))]
    folder = tiny_clip() / "0_CLIPModel"
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")
    features = CLIPModel.from_pretrained(folder).get_image_features(**pixels).pooler_output.detach().numpy()
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(model.get_image_embedding_batch(images), expected, atol=1e-5)


def test_a_folder_in_the_format_of_transformers_loads_too(model: ClipEmbedding, tmp_path: Path) -> None:
    """No modules.json: config.json is at the top."""
    shutil.copytree(tiny_clip() / "0_CLIPModel", tmp_path / "own-clip")
    own = ClipEmbedding(str(tmp_path / "own-clip"))
    assert (own.dim, own.max_tokens, own.model_name.endswith("own-clip")) == (DIM, 77, True)
    np.testing.assert_allclose(own.get_query_embedding("red"), model.get_query_embedding("red"), atol=1e-6)


def test_every_way_to_give_an_image_is_the_same_image(model: ClipEmbedding, tmp_path: Path) -> None:
    """Path, text path, bytes, file, PIL image, node, document."""
    image, path, buffer = draw("red", "square"), tmp_path / "a.png", BytesIO()
    image.save(path)
    image.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    given = [
        path, str(path), buffer.getvalue(), BytesIO(buffer.getvalue()), image, ImageNode(image_path=str(path)),
        ImageNode(image=encoded), ImageDocument(image_path=str(path)), ImageDocument(image=encoded),
    ]  # fmt: skip
    vectors = np.array(model.get_image_embedding_batch(given))  # type: ignore[arg-type]
    np.testing.assert_allclose(vectors, np.tile(model.get_image_embedding(image), (9, 1)), atol=1e-5)  # type: ignore[arg-type]


def test_a_text_longer_than_the_model_reads_is_refused(model: ClipEmbedding) -> None:
    """CLIP reads 77 tokens and would cut the rest silently."""
    with pytest.raises(ModelError, match=r"query has 82 tokens; 'tiny-clip' reads 77 .* chunk_size=75"):
        model.get_query_embedding("red " * 80)
    assert len(model.get_text_embedding("red " * 75)) == DIM
    assert model.count_tokens(["red circle", ""]) == [4, 2] and len(model.tokenize("red circle")) == 2


def test_one_bad_image_is_named(model: ClipEmbedding, tmp_path: Path) -> None:
    """The path stands in the error, whatever the others are."""
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not an image")
    with pytest.raises(ImageError, match=r"broken\.png' is of no known format"):
        model.get_image_embedding_batch([draw("red", "circle"), str(tmp_path / "broken.png")])  # type: ignore[list-item]


def test_embedding_does_not_block_the_event_loop(model: ClipEmbedding) -> None:
    """Other coroutines run while images and texts are embedded."""

    async def main() -> tuple[int, int]:
        ticks, images = 0, [draw("red", "circle", size=400, seed=i) for i in range(60)]
        task = asyncio.gather(
            model.aget_image_embedding_batch(images),  # type: ignore[arg-type]
            model.aget_text_embedding_batch(["blue square"] * 100),
            model.aget_query_embedding("red"),
            model.aget_image_embedding(images[0]),  # type: ignore[arg-type]
        )
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks, len(task.result()[0])

    ticks, embedded = asyncio.run(main())
    assert ticks > 3 and embedded == 60


def test_threads_share_one_model(model: ClipEmbedding) -> None:
    """Eight threads get the vectors that one gets."""
    image, results = draw("green", "triangle"), []

    def work() -> None:
        results.append([*model.get_text_embedding("green triangle"), *model.get_image_embedding(image)])  # type: ignore[arg-type]

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [*model.get_text_embedding("green triangle"), *model.get_image_embedding(image)]  # type: ignore[arg-type]
    assert len(results) == 8 and np.allclose(results, expected, atol=1e-6)


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, and the message holds the folder to copy them to."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"'clip-ViT-B-32' are not on this machine.*copy the folder to .*models/clip"
    ):
        ClipEmbedding(allow_download=False, device="cpu").get_query_embedding("red")


def test_weights_are_found_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: ClipEmbedding
) -> None:
    """A folder copied from the hub has no config.json at its top; it is found all the same."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    shutil.copytree(tiny_clip(), tmp_path / "models" / "clip-ViT-B-32")
    from llama_index_presets.embed.clip import embedding as clip

    clip._read_card.cache_clear()
    by_name = ClipEmbedding(allow_download=False)
    np.testing.assert_allclose(
        by_name.get_query_embedding("red"), model.get_query_embedding("red"), atol=1e-6
    )
    clip._read_card.cache_clear()


def test_another_model_under_a_known_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Vectors of another length are found before anything is embedded."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "clip-ViT-B-32"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "clip", "projection_dim": 7, "text_config": {}})
    )
    from llama_index_presets.embed.clip import embedding as clip

    clip._read_card.cache_clear()
    with pytest.raises(ModelError, match="makes vectors of 7 numbers; 'clip-ViT-B-32' makes 512"):
        ClipEmbedding(allow_download=False).get_image_embedding(draw("red", "circle"))  # type: ignore[arg-type]
    clip._read_card.cache_clear()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"config.json": '{"model_type": "bert"}'}, "of type 'bert', not 'clip'"),
        ({"config.json": "{"}, "holds no CLIP model"),
        ({}, "holds no CLIP model"),
        ({"config.json": '{"model_type": "clip", "text_config": {}}'}, "has no tokenizer .*vocab.json"),
    ],
)
def test_a_folder_that_is_no_clip_model_says_so(
    tmp_path: Path, content: dict[str, str], message: str
) -> None:
    """Another model, a damaged one, an empty folder, one without its tokenizer."""
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        ClipEmbedding(str(tmp_path)).get_query_embedding("red")


def test_damaged_weights_are_an_error_of_ours(tmp_path: Path) -> None:
    """A cut-off download names the folder."""
    shutil.copytree(tiny_clip(), tmp_path / "cut")
    weights = tmp_path / "cut" / "0_CLIPModel" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(
        ModelError, match="cannot be (loaded|read as safetensors) .* Download the model again"
    ):
        ClipEmbedding(str(tmp_path / "cut")).get_query_embedding("red")


def test_a_text_model_is_not_a_clip_model() -> None:
    """Nobody gets vectors of another space by a slip of the name."""
    with pytest.raises(SettingsError, match="reads text only"):
        ClipEmbedding("all-MiniLM-L6-v2")


def test_a_strip_is_cut_before_it_is_scaled() -> None:
    """1 × 50,000 pixels, scaled whole, would be 224 × 11 million."""
    assert PixelRecipe().array(Image.new("RGB", (1, 50_000), "red")).shape == (3, 224, 224)
    assert PixelRecipe().array(Image.new("RGB", (50_000, 3), "red")).shape == (3, 224, 224)


def test_all_colours_are_drawn() -> None:
    """The drawings that the model learns from differ."""
    assert len({draw(colour, "circle").tobytes() for colour in COLOURS}) == len(COLOURS)


def test_an_image_is_computed_once_whatever_its_file_is_called(model: ClipEmbedding, tmp_path: Path) -> None:
    """By its bytes: a copy, bytes in memory and a node find the vector; a picture that was drawn has no file."""
    cached = CachedMultiModalEmbedding(model, EmbeddingCache(tmp_path / "cache"))
    first, copy = tmp_path / "a.png", tmp_path / "copy of a.png"
    drawing = draw("red", "circle", size=90, seed=1)
    drawing.save(first)
    shutil.copy(first, copy)
    assert cached.missing_images([first, copy, drawing]) == [0, 2]
    vector = cached.get_image_embedding(str(first))
    assert vector == pytest.approx(model.get_image_embedding(str(first)), abs=1e-6)
    again = cached.get_image_embedding_batch(
        [copy, first.read_bytes(), ImageNode(image_path=str(first)), drawing]
    )
    assert again[:3] == [vector, vector, vector]
    assert again[3] == pytest.approx(vector, abs=1e-5)
    assert (cached.stats.misses, cached.stats.hits) == (1, 3)
    assert asyncio.run(cached.aget_image_embedding(BytesIO(first.read_bytes()))) == vector


def test_texts_and_images_never_share_a_vector(model: ClipEmbedding, tmp_path: Path) -> None:
    """The same bytes as a text and as an image are two things; a damaged image is named and not kept."""
    cached = CachedMultiModalEmbedding(model, EmbeddingCache(tmp_path / "cache"))
    cached.get_text_embedding("red circle")
    assert cached.missing(["red circle"]) == [] and cached.missing_images([b"red circle"]) == [0]
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"red circle")
    with pytest.raises(ImageError, match=r"damaged\.png' is of no known format"):
        cached.get_image_embedding(damaged)
    assert cached.missing_images([b"red circle"]) == [0]
