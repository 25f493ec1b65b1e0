"""Command `answers`: what the answer cache of a storage holds, and its removal."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_presets.cli.app import STORAGE, AsJson, StorageFolder, app, emit, say
from llama_index_presets.cli.engines import existing_storage

__all__ = ["answers"]


@app.command()
def answers(
    storage: StorageFolder = STORAGE,
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of them from the disk.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answers that the answer cache of a storage holds."""
    from llama_index_presets.answer_cache.store import AnswerCache

    place = existing_storage(storage)
    cache = AnswerCache(place.answers, max_bytes=1, max_age_s=1)
    try:
        removed = cache.clear() if clear else 0
        held, size = len(cache), cache.path.stat().st_size if cache.path.exists() else 0
    finally:
        cache.close()
    if as_json:
        emit({"storage": place.shown, "answers": held, "bytes": size, "removed": removed})
    elif clear:
        say(f"{removed} answers removed from '{place.shown}'.")
    else:
        say(f"{held} answers in '{place.shown}', {size / 1e6:.1f} MB. Remove them with --clear.")
