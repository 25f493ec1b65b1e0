"""The tokenizer of a model folder by the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index_presets.errors import ModelError
from llama_index_presets.inference.model_folder import read_json
from llama_index_presets.packages.extras import require

__all__ = ["ModelTokenizer", "open_tokenizer"]

_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def open_tokenizer(folder: Path) -> Any:
    """A `tokenizers.Tokenizer` that neither pads nor truncates, of ``tokenizer.json`` or of an older pair of files.

    Raises:
        ModelError: The folder has no tokenizer, or a damaged one.
    """
    library = require("tokenizers", extra="local")
    try:
        if (folder / "tokenizer.json").is_file():
            found = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            found = _byte_pairs(library, folder)
        elif (folder / "vocab.txt").is_file():
            found = _word_pieces(library, folder)
        else:
            raise ModelError(
                f"'{folder}' has no tokenizer (tokenizer.json, vocab.json with merges.txt, or vocab.txt). "
                "Save the model with its fast tokenizer."
            )
    except ModelError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"'{folder}' has no tokenizer that can be loaded ({str(error)[:200]}). Download the model again."
        ) from error
    found.no_truncation()
    found.no_padding()
    return found


def _word_pieces(library: Any, folder: Path) -> Any:
    stated = read_json(folder / "tokenizer_config.json", missing={})
    made = library.BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=bool(stated.get("do_lower_case", True)),
        strip_accents=stated.get("strip_accents"),
        handle_chinese_chars=bool(stated.get("tokenize_chinese_chars", True)),
    )
    return made._tokenizer


def _byte_pairs(library: Any, folder: Path) -> Any:
    """CLIP's tokenizer, or RoBERTa's, which share the two files and differ in how words are taken apart."""
    clip = read_json(folder / "config.json", missing={}).get("model_type", "clip").startswith("clip")
    vocabulary, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    if not clip:
        made = library.ByteLevelBPETokenizer(vocabulary, merges)._tokenizer
        ends = [(token, made.token_to_id(token)) for token in ("</s>", "<s>")]
        made.post_processor = library.processors.RobertaProcessing(*ends)
        return made
    model = library.models.BPE.from_file(
        vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"
    )
    made = library.Tokenizer(model)
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    cleaned = [
        library.normalizers.NFC(),
        library.normalizers.Replace(library.Regex(r"\s+"), " "),
        library.normalizers.Lowercase(),
    ]
    made.normalizer = library.normalizers.Sequence(cleaned)
    words = library.pre_tokenizers.Split(library.Regex(_CLIP_WORDS), behavior="removed", invert=True)
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [words, library.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    ends = [(token, made.token_to_id(token)) for token in ("<|endoftext|>", "<|startoftext|>")]
    made.post_processor = library.processors.RobertaProcessing(
        *ends, add_prefix_space=False, trim_offsets=False
    )
    return made


class ModelTokenizer:
    """Token ids as a model reads them, truncated to its length; safe to share between threads.

    Args:
        folder: With the tokenizer.
        max_tokens: Of a text or a pair, special tokens included.
        lowercase: Whether texts are lowercased first.
    """

    def __init__(self, folder: Path, max_tokens: int, *, lowercase: bool = False) -> None:
        self._tokenizer = open_tokenizer(folder)
        # Of a pair, the longest part first, as transformers does.
        self._tokenizer.enable_truncation(max_tokens)
        self._lowercase = lowercase

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Encodings of texts, with ``ids`` and ``type_ids``, not padded."""
        given = [text.lower() if self._lowercase else text for text in texts]
        return list(self._tokenizer.encode_batch_fast(given))

    def encode_pairs(self, first: str, second: Sequence[str]) -> list[Any]:
        """Encodings of pairs that share their first text."""
        return list(self._tokenizer.encode_batch_fast([(first, text) for text in second]))
