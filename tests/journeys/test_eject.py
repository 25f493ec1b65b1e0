"""An ejected preset is plain code that gives the same answers from the same index."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers.openai import OpenAIServer
from tests.servers.pinecone import pinecone_server
from tests.tiny_clip import PAIRS, draw, tiny_clip
from tests.unit.rerank.conftest import save_model

from llama_index_presets import PRESETS, build
from llama_index_presets.advise.eject import eject
from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.errors import MonitorError, SettingsError, UnknownPresetError
from llama_index_presets.monitor.ledger.journal import Journal

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"
QUESTIONS = [
    "How is botulism treated?",
    "How long may an insulin pen in use be kept at room temperature?",
    "Who won the 2030 World Cup?",
]
OFFLINE = [
    "healthcare",
    "financial-documents",
    *(
        pytest.param(
            preset, marks=pytest.mark.slow("two engines a preset; the parts of these are in the two above")
        )
        for preset in ("knowledge-base", "customer-chatbot", "research-papers", "high-volume")
    ),
]


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audit entries are signed with a key of this test; nothing is traced."""
    monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", "a-key-of-sixteen-bytes-or-more")
    monkeypatch.setenv("LLAMA_PRESETS_TRACE_ENDPOINT", "off")


def load(project: Path, monkeypatch: pytest.MonkeyPatch, storage: Path | None = None) -> Any:
    """The project's app.py as a module."""
    monkeypatch.setenv("APP_STORAGE", str(storage or project / "storage"))
    spec = importlib.util.spec_from_file_location(
        f"ejected_{project.name.replace('-', '_')}", project / "app.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(response: Any) -> tuple[str, list[Any], list[str], bool]:
    """What must be equal: the answer, what it cites, what it was made from, whether it is one."""
    metadata = response.metadata
    return (
        str(response),
        metadata["citations"],
        [hit.node_id for hit in response.source_nodes],
        metadata["known"],
    )


@pytest.mark.parametrize("preset", OFFLINE)
def test_the_project_answers_as_the_preset_does(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word and citation for citation, from documents that it ingested itself."""
    with build(preset, storage=tmp_path / "preset", offline=True, settings={"pii": "off"}) as engine:
        engine.ingest(DOCUMENTS)
        expected = [told(engine.query(question)) for question in QUESTIONS]
    eject(preset, tmp_path / preset, offline=True)
    with load(tmp_path / preset, monkeypatch).App() as app:
        assert app.ingest([str(DOCUMENTS)]).documents == 5
        assert [told(app.query(question)) for question in QUESTIONS] == expected
        assert app.ledger.get_usage_stats(days=1).total_calls > 0
    if preset == "financial-documents":
        assert len((tmp_path / preset / "storage" / "audit.jsonl").read_text().splitlines()) == len(QUESTIONS)


@pytest.mark.parametrize(
    "preset",
    [
        "knowledge-base",
        *(
            pytest.param(one, marks=pytest.mark.slow("two engines a preset, two of them with a PostgreSQL"))
            for one in ("customer-chatbot", "financial-documents", "high-volume")
        ),
    ],
)
def test_the_hosted_project_answers_and_bills_as_the_preset_does(
    preset: str, openai: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the row's own hosted models and stores, here on loopback; only the cross-encoder is a small one."""
    openai.words = ("An antitoxin", " helps", " [1].")
    settings: dict[str, Any] = {"answer_floor": -1.0, "pii": "off"}
    if preset == "customer-chatbot":
        settings["reranker"] = str(save_model(tmp_path / "model"))
    with pinecone_server(1536) as pinecone:
        for name, value in {"API_KEY": "pc-x", "INDEX": "manuals", "HOST": pinecone.url}.items():
            monkeypatch.setenv(f"PINECONE_{name}", value)
        hosted = {"high-volume": f"pinecone://manuals?host={pinecone.url}"}
        with build(
            preset,
            storage=hosted.get(preset, tmp_path / "preset"),
            settings={**settings, "trace_endpoint": "off"},
        ) as engine:
            engine.ingest(DOCUMENTS)
            expected = [engine.query(question) for question in QUESTIONS]
        eject(preset, tmp_path / preset, settings=settings)
        module = load(tmp_path / preset, monkeypatch)
        monkeypatch.setenv("PINECONE_NAMESPACE", "project")
        with module.App() as app:
            assert app.ingest([str(DOCUMENTS)]).documents == 5
            answers = [app.query(question) for question in QUESTIONS]
    assert [told(answer) for answer in answers] == [told(answer) for answer in expected]
    costs = [answer.metadata["cost_usd"] for answer in answers]
    assert costs == [answer.metadata["cost_usd"] for answer in expected] and min(costs) > 0


def test_a_full_ledger_keeps_no_answer_of_the_project_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the preset: the cost is not known, and the log says why."""
    eject("healthcare", tmp_path / "project", offline=True)
    with load(tmp_path / "project", monkeypatch).App() as app:
        app.ingest([str(DOCUMENTS)])
        with monkeypatch.context() as full:
            full.setattr(Journal, "append", _refuse)
            response = app.query(QUESTIONS[0])
        assert response.metadata["known"] and response.metadata["cost_usd"] is None
        assert "cost is not known: The ledger is full." in caplog.text


def _refuse(*_: object) -> None:
    raise MonitorError("The ledger is full.")


def test_images_are_found_as_the_preset_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The multi-modal row, with a CLIP that is small enough for a test in the place of its own."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for pair in PAIRS[:5]:
        draw(*pair, size=96, seed=5).save(pictures / f"{'-'.join(pair)}.png")
    model = ClipEmbedding(str(tiny_clip()))
    with build("multi-modal", storage=tmp_path / "preset", embed_model=model) as engine:
        engine.ingest(pictures)
        expected = told(engine.query("red circle"))
    eject("multi-modal", tmp_path / "p")
    module = load(tmp_path / "p", monkeypatch)
    module.EMBEDDING, module.CHUNK_TOKENS = str(tiny_clip()), model.max_tokens
    module.ANSWER_FLOOR = module.CROSS_FLOOR = 0.0  # what the preset takes for a model that it does not know
    with module.App() as app:
        assert app.ingest([str(pictures)]).documents == 5
        assert told(app.query("red circle")) == expected
    assert expected[0].startswith("Closest images: red-circle.png [1]")


@pytest.mark.parametrize(
    "chunking",
    [
        "hierarchical",
        pytest.param("sentence-window", marks=pytest.mark.slow("a second chunking, two more engines")),
    ],
)
def test_the_project_reads_the_presets_index(
    chunking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings stand in the code; an existing storage is used as it is, and nothing is embedded again."""
    settings = {"chunking": chunking, "top_k": 2, "pii": "off"}
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(DOCUMENTS)
        expected = [told(engine.query(question)) for question in QUESTIONS]
    eject("healthcare", tmp_path / "p", settings=settings)
    with load(tmp_path / "p", monkeypatch, tmp_path / "s").App() as app:
        assert app.ingest([str(DOCUMENTS)]).unchanged == 5
        assert [told(app.query(question)) for question in QUESTIONS] == expected


@pytest.mark.slow("two processes that load torch: 20 s of CPU")
def test_the_project_runs_alone_and_loads_nothing_of_the_presets(tmp_path: Path) -> None:
    """As a user runs it: another process, the command line, then what it has loaded."""
    eject("knowledge-base", tmp_path / "p", offline=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path / "p",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert run("app.py", "ingest", str(DOCUMENTS)) == "5 documents ingested, 0 unchanged\n"
    shown = (
        "import json, sys, app\nwith app.App() as made: answer = str(made.query('How is botulism treated?'))\n"
        "print(json.dumps([answer, [name for name in sys.modules if name.startswith('llama_index_presets.presets')]]))"
    )
    answer, loaded = json.loads(run("-c", shown).splitlines()[-1])
    assert "antitoxin" in answer and loaded == []


def test_the_code_is_clean_and_names_no_preset_machinery(tmp_path: Path) -> None:
    """Ruff finds nothing to say with the project's own settings; imports are components alone."""
    for preset in PRESETS:
        for offline in (True, False):
            folder = tmp_path / f"{preset}-{offline}"
            done = eject(preset, folder, offline=offline)
            text = (folder / "app.py").read_text()
            modules = [
                node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
            ]
            assert not [name for name in modules if name.startswith("llama_index_presets.presets")]
            assert "llama_index_presets" not in modules and "build(" not in text
            wanted = (folder / "requirements.txt").read_text()
            assert wanted.startswith(f"llama-index-presets[{','.join(done.extras)}]==")
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", str(tmp_path)]
        found = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_readme_says_what_is_imported_and_what_is_fetched(tmp_path: Path) -> None:
    """Every name of this package, and the command for the weights of a local model; a hosted one needs none."""
    for preset, offline, weights in (("healthcare", False, True), ("knowledge-base", False, False)):
        eject(preset, folder := tmp_path / preset, offline=offline)
        readme = (folder / "README.md").read_text()
        ours = [
            alias.name
            for node in ast.walk(ast.parse((folder / "app.py").read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llama_index_presets")
            for alias in node.names
        ]
        assert ours and all(f"`{name}`" in readme for name in ours)
        assert ("llama-presets weights pull all-MiniLM-L6-v2" in readme) is weights
        assert "--find-links CLONE/dist" in readme  # until an index has the release


def test_what_is_not_taken_along_is_said(tmp_path: Path) -> None:
    """Encryption and the report on personal data, in the notices and in the README."""
    notices = eject("healthcare", tmp_path).notices
    assert any("text in clear" in notice for notice in notices)
    assert all(notice in (tmp_path / "README.md").read_text() for notice in notices)
    with pytest.raises(SettingsError, match="would keep text in clear and whole"):
        eject("healthcare", tmp_path / "other", settings={"pii": "redact"})


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    """Unless --force is given, which replaces the project's files and no others."""
    (tmp_path / "app.py").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty"):
        eject("knowledge-base", tmp_path, offline=True)
    assert (tmp_path / "app.py").read_text() == "mine"
    eject("knowledge-base", tmp_path, offline=True, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine" and "class App" in (tmp_path / "app.py").read_text()
    with pytest.raises(SettingsError, match="is a file"):
        eject("knowledge-base", tmp_path / "app.py", offline=True)
    with pytest.raises(UnknownPresetError, match="healthcare"):
        eject("helthcare", tmp_path / "other")


def test_the_command_writes_the_project(tmp_path: Path, run: Any) -> None:
    """One JSON object, notices on standard error."""
    code, out, err = run("eject", "healthcare", tmp_path / "p", "--json")
    assert code == 0 and "in clear" in err
    assert set(json.loads(out)) == {"folder", "files", "extras"}
