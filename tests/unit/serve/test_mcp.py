"""Model Context Protocol, spoken by the official client: over HTTP with keys, in process, and over stdio."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from llama_index.core import Document
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from tests.unit.serve.conftest import Running, add_keys, config_of, running

import llama_index_presets
from llama_index_presets import build

QUESTION = "What do cats do all day?"


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def test_tools_answer_search_and_list(server: Running) -> None:
    """The three tools say what they take, and give structured results with citations."""
    async with Client(f"{server.url}/mcp") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "ask", "list_documents"}
        assert all(tool.description for tool in tools.values())
        assert "ctx" not in json.dumps(tools["ask"].input_schema)
        answer = await call(client, "ask", question=QUESTION)
        assert (answer["answer"], answer["known"]) == ("Yes [1].", True)
        assert answer["citations"][0]["source"] == "cats.txt" and answer["unsupported"] == []
        found = await call(client, "search", query="Cats purr all day", top_k=1)
        assert [one["source"] for one in found["passages"]] == ["cats.txt"]
        listed = await call(client, "list_documents")
        assert {one["id"] for one in listed["documents"]} >= {"cats.txt", "dogs.txt"}


async def test_documents_are_resources(server: Running) -> None:
    """The uri that a listing gives is read as text; another one is not found."""
    async with Client(f"{server.url}/mcp") as client:
        listed = await call(client, "list_documents", engine="kb")
        uri = next(one["uri"] for one in listed["documents"] if one["id"] == "cats.txt")
        content = (await client.read_resource(uri)).contents[0]
        assert content.text == "Cats purr all day."  # type: ignore[union-attr]
        with pytest.raises(Exception, match="no such document"):
            await client.read_resource("document://kb/nothing.txt")
        assert (await client.list_resource_templates()).resource_templates[0].name == "document"


async def test_a_refusal_is_told_to_the_agent(server: Running) -> None:
    """An unknown engine and an empty question are errors of the tool, with the reason and nothing else."""
    async with Client(f"{server.url}/mcp") as client:
        for tool, arguments in (("ask", {"question": "x", "engine": "none"}), ("ask", {"question": " "})):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "no engine 'none'" in str(result.content) or "is empty" in str(result.content)


async def test_the_key_of_the_request_is_the_caller(tmp_path: Path) -> None:
    """Over HTTP a tenant's key sees the tenant's documents; without a key nothing is answered."""
    keys = add_keys(tmp_path / "keys.json", {"ada": {"tenant": "acme"}})
    with running(config_of(tmp_path, keys=str(tmp_path / "keys.json"))) as server:
        server.engine.for_tenant("acme").ingest([Document(text="Acme sells anvils.", id_="anvils.txt")])
        headers = {"Authorization": f"Bearer {keys['ada']}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
        ):
            listed = await call(client, "list_documents")
            assert [one["id"] for one in listed["documents"]] == ["anvils.txt"]
            with pytest.raises(Exception, match="no such document"):
                await client.read_resource("document://kb/cats.txt")
        assert server.client().post("/mcp", json={}).status_code == 401


@pytest.mark.slow("starts the command, which imports LlamaIndex and a model, in a process of its own")
async def test_the_command_speaks_mcp_over_stdio(tmp_path: Path) -> None:
    """An agent starts `llama-presets mcp PRESET`, asks, and gets an answer with its citation."""
    with build("healthcare", storage=tmp_path / "clinic") as engine:
        engine.ingest([Document(text="Botulism is treated with an antitoxin.", id_="botulism.txt")])
    arguments = ["-m", "llama_index_presets", "mcp", "healthcare", "--storage", str(tmp_path / "clinic")]
    source = str(Path(llama_index_presets.__file__).parents[1])
    parameters = StdioServerParameters(
        command=sys.executable, args=arguments, env={**os.environ, "PYTHONPATH": source}
    )
    async with Client(stdio_client(parameters)) as client:
        answer = await call(client, "ask", question="How is botulism treated?")
        assert answer["answer"] == "Botulism is treated with an antitoxin. [1]"
        assert answer["citations"][0]["source"] == "botulism.txt"
