"""What every row must do, whichever way it was built: ask in all ways, filter, cite, bill."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index_presets.filters.text import parse_filters
from llama_index_presets.presets.engine import PresetEngine


def ask_every_way(engine: PresetEngine, question: str) -> list[dict[str, Any]]:
    """Query, await, stream, astream: one answer, cited and billed; gives the metadata of each."""
    plain, stream = engine.query(question), engine.stream(question)
    streamed = "".join(stream.response_gen).strip()

    async def awaited() -> tuple[Any, Any, str]:
        response, pieces = await engine.aquery(question), await engine.astream(question)
        return response, pieces, "".join([piece async for piece in pieces.async_response_gen()]).strip()

    response, pieces, text = asyncio.run(awaited())
    assert str(plain) == streamed == str(response) == text
    found = [plain.metadata, stream.metadata, response.metadata, pieces.metadata]
    ids = [metadata["query_id"] for metadata in found]
    assert len(set(ids)) == 4
    for metadata in found:
        assert metadata["known"] and metadata["citations"] and all(c["valid"] for c in metadata["citations"])
        assert metadata["cost_usd"] is not None and metadata["latency_ms"] > 0
    placeholders = ",".join(f"'{one}'" for one in ids)
    rows = engine.ledger.sql(
        f"select query_id, count(*) from llm_calls where kind = 'llm' and query_id in ({placeholders}) group by 1"
    ).fetchall()
    assert sorted(rows) == sorted((one, 1) for one in ids)
    return found


def only_sees(engine: PresetEngine, question: str, condition: str, key: str, value: Any) -> None:
    """Under a condition every passage satisfies it, and there is one."""
    hits = engine.with_filters(parse_filters([condition])).query(question).source_nodes  # type: ignore[arg-type]
    assert hits and {hit.metadata[key] for hit in hits} == {value}
