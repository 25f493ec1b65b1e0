"""A real CLIP that is small enough to be trained in a test: it knows colours and shapes, and nothing else.

No weights can be downloaded where the tests run, so this one is built with `transformers.CLIPModel`, trained on drawn
shapes, and saved in the format of the published models: a CLIP tokenizer (byte-level BPE), an image processor, and, for
sentence-transformers, the modules file around them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from llama_index_presets.embed.clip.model import PixelRecipe
from llama_index_presets.files.locks import FileLock

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 210, 40),
}
SHAPES = ("circle", "square", "triangle")
PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
SIDE = 32
DIM = 512  # that of clip-ViT-B-32, so that it can stand in its place

_TEMPLATES = ("{} {}", "a {} {}", "the {} {}", "a picture of a {} {}", "{} {} on a light background")
_STEPS = 600
_RATE = 2e-3
_DRAWINGS = 60


def draw(colour: str, shape: str, *, size: int = 64, seed: int = 0) -> Image.Image:
    """A shape somewhere on a light background."""
    chance = random.Random(f"{colour}{shape}{seed}")
    image = Image.new("RGB", (size, size), tuple(chance.randint(225, 255) for _ in range(3)))
    radius = size * chance.uniform(0.29, 0.39)
    x, y = (chance.uniform(radius, size - radius) for _ in range(2))
    fill = tuple(max(0, min(255, part + chance.randint(-15, 15))) for part in COLOURS[colour])
    box = (x - radius, y - radius, x + radius, y + radius)
    pencil = ImageDraw.Draw(image)
    if shape == "circle":
        pencil.ellipse(box, fill=fill)
    elif shape == "square":
        pencil.rectangle(box, fill=fill)
    else:
        pencil.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return image


def tiny_clip() -> Path:
    """The folder of the trained model, in sentence-transformers format; made once, then found again.

    Cached by the content of this file in the temporary folder, so several processes and sessions share one training.
    """
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    shared = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir())
    folder = shared / f"llama-presets-tiny-clip-{key}" / "tiny-clip"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / "lock") as lock:
        lock.acquire()
        if not (folder / "modules.json").is_file():
            partial = Path(tempfile.mkdtemp(prefix="llama-presets-tiny-clip-", dir=shared))
            build(partial / "tiny-clip")
            (partial / "tiny-clip").rename(folder)
            partial.rmdir()
    return folder


def build(folder: Path) -> None:
    """Train the model and save it as the hub holds ``sentence-transformers/clip-ViT-B-32``."""
    inner = folder / "0_CLIPModel"
    inner.mkdir(parents=True)
    tokenizer = _tokenizer()
    model = _train(tokenizer)
    model.save_pretrained(inner)
    _save_tokenizer(inner)
    preprocessor = {
        "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "size": {"shortest_edge": SIDE},
    }  # fmt: skip
    (inner / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    modules = [
        {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text("{}")


def _vocabulary() -> tuple[dict[str, int], list[str]]:
    """Bytes, bytes at the end of a word, and merges that spell the words of the templates."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: dict[str, None] = {}
    words = {*COLOURS, *SHAPES, *" ".join(_TEMPLATES).replace("{}", "").split()}
    for word in sorted(words):
        built, rest = word[0], [*word[1:-1], f"{word[-1]}</w>"]
        for piece in rest if len(word) > 1 else []:
            merges[f"{built} {piece}"] = None
            built += piece
            tokens.append(built)
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {token: place for place, token in enumerate(tokens)}, list(merges)


def _save_tokenizer(folder: Path) -> None:
    """The two files that the published model has; no tokenizer.json."""
    vocabulary, merges = _vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        _save_tokenizer(Path(folder))
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "clip"}))
        return AutoTokenizer.from_pretrained(folder)


def _model(vocabulary: int, end: int) -> Any:
    from transformers import CLIPConfig, CLIPModel

    layer = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **layer, "vocab_size": vocabulary, "max_position_embeddings": 77, "projection_dim": DIM,
        "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    vision = {**layer, "image_size": SIDE, "patch_size": 8, "projection_dim": DIM}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM))


def _train(tokenizer: Any) -> Any:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on matrices this small wait for each other most of the time
    torch.manual_seed(1)
    model = _model(len(tokenizer), len(tokenizer) - 1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.2)
    pixels, texts = _pixels(), _texts(tokenizer)
    for step in range(_STEPS):
        tokens = {name: values[step % len(_TEMPLATES)] for name, values in texts.items()}
        loss = model(pixel_values=pixels[step % _DRAWINGS], **tokens, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    return model.eval()


def _pixels() -> Any:
    """A drawing of every pair, many times: shape (_DRAWINGS, pairs, 3, SIDE, SIDE)."""
    import numpy as np
    import torch

    recipe = PixelRecipe(edge=SIDE, side=SIDE)
    drawings = [[recipe.array(draw(*pair, seed=1000 + i)) for pair in PAIRS] for i in range(_DRAWINGS)]
    return torch.from_numpy(np.array(drawings))


def _texts(tokenizer: Any) -> dict[str, Any]:
    """Every template filled with every pair, as tensors of shape (templates, pairs, tokens)."""
    texts = [template.format(*pair) for template in _TEMPLATES for pair in PAIRS]
    tensors = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: values.view(len(_TEMPLATES), len(PAIRS), -1) for name, values in tensors.items()}
