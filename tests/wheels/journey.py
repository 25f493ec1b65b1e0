"""Ingest, ask, close, open again: run by the Python of an environment with nothing but the wheel and its extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # for the loopback server of the tests; our package comes from the wheel

DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"
QUESTION = "How is botulism treated?"


def main(preset: str) -> None:
    import llama_index_presets
    from llama_index_presets import PRESETS, build

    assert "site-packages" in llama_index_presets.__file__, llama_index_presets.__file__
    assert PRESETS[preset].missing() == []
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory())
        if PRESETS[preset].llm != "extractive":
            from tests.servers.openai import OpenAIServer

            server = stack.enter_context(OpenAIServer())
            os.environ |= {
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_API_BASE": server.url,
                "OPENAI_BASE_URL": server.url,
            }
        settings = {"answer_floor": -1.0}
        with build(preset, storage=storage, settings=settings) as engine:
            report = engine.ingest(DOCUMENTS)
            assert report.documents == 5 and not report.failed, report
            answer = engine.query(QUESTION)
            assert answer.source_nodes and answer.metadata["cost_usd"] is not None
        with build(preset, storage=storage, settings=settings) as engine:
            assert engine.ingest(DOCUMENTS).unchanged == 5
            again = engine.query(QUESTION)
            assert [hit.node_id for hit in again.source_nodes] == [hit.node_id for hit in answer.source_nodes]
        command = [str(Path(sys.executable).parent / "llama-presets"), "list", "--json"]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert [row["ready"] for row in listed["presets"] if row["name"] == preset] == [True]
    print(f"{preset}: {str(again)[:100]!r}, {again.metadata['cost_usd']} USD", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
