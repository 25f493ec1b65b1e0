"""The project file: found, checked, and what commands take from it."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from tools import project_schema

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.project.file import find_project, read_project
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.presets.settings import Settings
from llama_index_presets.serve.config import read_config

FILE = """
preset = "healthcare"
storage = "index"
sources = ["docs"]

[settings]
top_k = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a project file and a document, which is the current one."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Pens\n\nA pen in use is kept for 28 days.\n")
    (tmp_path / "llama-presets.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_of_settings_are_relative_to_their_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder below, `prices = "prices.toml"` was looked for there, and an embedding cache was made there."""
    lines = 'prices = "prices.toml"\nembedding_cache = "vectors"\nstate = "../state"\n'
    (project / "llama-presets.toml").write_text(FILE + lines)
    (project / "settings.toml").write_text('prices = "/etc/prices.toml"\nembedding_cache = "off"\n')
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    values, _ = load_settings("../llama-presets.toml", "healthcare")
    assert Path(values.prices).resolve() == project / "prices.toml"
    assert Path(values.embedding_cache).resolve() == project / "vectors"
    assert Path(values.state).resolve() == project.parent / "state"
    plain, _ = load_settings("../settings.toml", "healthcare")
    assert (plain.prices, plain.embedding_cache) == ("/etc/prices.toml", "off")
    serve = '[engines.a]\npreset = "healthcare"\nstorage = "s"\nsettings = { prices = "prices.toml" }\n'
    (project / "serve.toml").write_text(serve)
    (engine,) = read_config(project / "serve.toml").engines.values()
    assert engine.settings == {"prices": str(project / "prices.toml")}


def test_an_empty_path_of_a_setting_stays_empty(project: Path) -> None:
    """As in code: an index on a server kept its state beside the file, in whatever folder that is."""
    (project / "settings.toml").write_text('state = ""\nprices = ""\n')
    values, _ = load_settings(str(project / "settings.toml"), "healthcare")
    assert (values.state, values.prices) == ("", "")


def test_commands_need_no_arguments_in_a_project(run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Preset, paths, storage and settings come from the file, also in a folder below; it is named once, on stderr."""
    code, out, err = run("ingest", "--json")
    assert (code, json.loads(out)["documents"]) == (0, 1)
    assert err.count("Project: llama-presets.toml (healthcare)") == 1 and "Project" not in out
    monkeypatch.chdir(project / "docs")
    code, out, err = run("ask", "How long is a pen kept?", "--json")
    answer = json.loads(out)
    assert code == 0 and "28 days" in answer["answer"] and "Project: ../llama-presets.toml" in err
    assert run("ask", "healthcare", "How long is a pen kept?", "--json")[0] == 0
    assert json.loads(run("costs", "--json")[1])["total_calls"] > 0
    assert run("doctor", "--json")[0] == 0
    found = {one["name"]: one for one in json.loads(run("show", "--json")[1])["settings"]}
    assert (found["top_k"]["value"], found["top_k"]["from"]) == (3, str(project / "llama-presets.toml"))
    assert sorted(path.name for path in project.iterdir()) == ["docs", "index", "llama-presets.toml"]


def test_a_question_may_be_longer_than_the_name_of_a_file(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """It is looked for among the files, since the preset may be left out."""
    assert run("ingest")[0] == 0
    code, out, _ = run("ask", "How long is a pen kept in use? " * 12, "--json")
    assert code == 0 and "28 days" in json.loads(out)["answer"]


def test_explicit_arguments_go_before_the_file(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """Another storage, other paths, other settings; and another preset takes nothing from the file."""
    (project / "b.txt").write_text("Beds are made at six.")
    (project / "own.toml").write_text("top_k = 7\n")
    code, out, _ = run("ingest", "b.txt", "--storage", "other", "--settings", "own.toml", "--json")
    assert (code, json.loads(out)["documents"], (project / "other").is_dir()) == (0, 1, True)
    assert not (project / "index").exists()
    code, _, err = run("ask", "knowledge-base", "What?")
    assert code == 1 and "'llama-presets.toml' is for 'healthcare': not used for 'knowledge-base'" in err
    assert "llama-presets-storage' holds no index" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "healthcare"], "Missing argument 'QUESTION'"),
        (["ask", "helthcare"], "Did you mean 'healthcare'?"),
        (["ask", "helthcare", "What?"], "Did you mean 'healthcare'?"),
        (["ingest", "helthcare"], "Did you mean 'healthcare'?"),
        (["chat", "helthcare"], "Did you mean 'healthcare'?"),
        (["ingest", "docz"], "There is no 'docz'"),
        (["ask", "What", "is", "kept?"], 'several words in quotes: llama-presets ask "What is kept?"'),
    ],
)
def test_a_word_that_fits_nowhere_is_named(run, project: Path, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    """A mistyped preset is no question, a missing path no preset."""
    code, _, err = run(*arguments)
    assert code in (1, 2) and message in err


@pytest.mark.parametrize(
    ("arguments", "next_command"),
    [
        (["ask", "How is it kept?"], 'llama-presets ask healthcare "How is it kept?"'),
        (["chat"], "llama-presets chat healthcare"),
        (["ingest", "docs"], "llama-presets ingest healthcare docs"),
        (["ingest"], "llama-presets init"),
    ],
)
def test_without_a_project_the_preset_is_asked_for(  # type: ignore[no-untyped-def]
    run, project: Path, arguments: list[str], next_command: str
) -> None:
    """Both ways out are in the message: name a preset, or make the file."""
    (project / "llama-presets.toml").unlink()
    code, _, err = run(*arguments)
    assert code == 2 and next_command in err and "llama-presets init" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("storage = 'x'", "it has no 'preset'"),
        ("preset = 'helthcare'", "Did you mean 'healthcare'"),
        ("preset = 'healthcare'\ntop_k = 3", "'top_k' is unknown; settings belong under \\[settings\\]"),
        ("preset = 'healthcare'\nsource = ['a']", "did you mean 'sources'"),
        ("preset = 'healthcare'\nsources = 'docs'", "sources is 'docs', expected a list of texts"),
        ("preset = 'healthcare'\noffline = 'yes'", "offline is 'yes', expected true or false"),
        ("preset = 'healthcare", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With what is wrong, and what stands near."""
    (tmp_path / "llama-presets.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_project(tmp_path / "llama-presets.toml")


def test_settings_of_a_project_are_those_of_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models stand at its top; the environment goes before it; another preset and a mistyped setting are refused."""
    file = tmp_path / "llama-presets.toml"
    file.write_text(
        'preset = "research-papers"\nllm = { name = "ollama/llama3.2", timeout_s = 9 }\n[settings]\ntop_k = 3'
    )
    monkeypatch.setenv("LLAMA_PRESETS_TOP_K", "4")
    values, origins = load_settings(file, "research-papers")
    assert (values.llm, values.llm_options, values.top_k) == ("ollama/llama3.2", {"timeout_s": 9}, 4)
    assert (origins["llm"], origins["top_k"]) == (str(file), "LLAMA_PRESETS_TOP_K")
    with pytest.raises(SettingsError, match="project file of 'research-papers', not of 'healthcare'"):
        load_settings(file, "healthcare")
    file.write_text('preset = "healthcare"\n[settings]\ntopk = 3')
    with pytest.raises(SettingsError, match="Did you mean 'top_k'"):
        load_settings(file, "healthcare")
    file.write_text('preset = "healthcare"\nllm = "ollama/a"\n[settings]\nllm = "ollama/b"')
    with pytest.raises(SettingsError, match="llm is given at the top and under \\[settings\\]. Keep one"):
        load_settings(file, "healthcare")


def test_a_file_above_of_another_user_is_not_followed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared folder anybody could name a model there; in the folder itself it was looked at."""
    here = project.stat()
    monkeypatch.setattr(os, "getuid", lambda: here.st_uid + 1 if here.st_uid else 1)
    os.chown(project / "llama-presets.toml", 4242, -1) if here.st_uid == 0 else None
    assert find_project(project) is not None
    with pytest.raises(SettingsError, match="belongs to another user"):
        find_project(project / "docs")


def test_serve_takes_engine_and_access_from_the_project(project: Path) -> None:
    """The project's engine comes first, beside those of [engines]; [serve] is the server's."""
    from llama_index_presets.cli.commands.serve import _config

    (project / "llama-presets.toml").write_text(
        FILE + '[serve]\nport = 9000\n[engines.papers]\npreset = "research-papers"\nstorage = "papers"\n'
    )
    found = _config("healthcare", "index", None, False, project / "llama-presets.toml", None)
    assert (list(found.engines), found.port) == (["healthcare", "papers"], 9000)


def test_ingest_passes_the_project_file_over(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """A project over its own folder has its documents in the index, not itself, nor a hidden storage."""
    (project / "llama-presets.toml").write_text(
        'preset = "healthcare"\nstorage = ".index"\nsources = ["."]\n'
    )
    for documents, unchanged in ((1, 0), (0, 1)):
        code, out, _ = run("ingest", "--json")
        report = json.loads(out)
        assert (code, report["documents"], report["unchanged"]) == (0, documents, unchanged)


# -- init -------------------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_works_and_never_over_one(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """Without keys hosted parts are swapped; the file is TOML with a schema; the second run is refused."""
    (project / "llama-presets.toml").unlink()
    code, out, err = run("init", "--yes")
    content = tomllib.loads((project / "llama-presets.toml").read_text())
    assert (code, err) == (0, "") and "Next: llama-presets ingest" in out
    assert (content["preset"], content["sources"], content["offline"]) == ("knowledge-base", ["docs"], True)
    assert (project / "llama-presets.toml").read_text().startswith("#:schema https://")
    before = (project / "llama-presets.toml").read_text()
    code, _, err = run("init", "--yes")
    assert code == 2 and "it is kept" in err and (project / "llama-presets.toml").read_text() == before
    assert run("ingest", "--json")[0] == 0 and "28 days" in run("ask", "How long is a pen kept?")[1]


def test_init_by_flags(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """One object for programs; a model by its name; a storage of its own."""
    (project / "llama-presets.toml").unlink()
    arguments = [
        "--preset",
        "healthcare",
        "--documents",
        "docs",
        "--llm",
        "ollama/llama3.2",
        "--storage",
        "s",
    ]
    code, out, _ = run("init", *arguments, "--json")
    written = json.loads(out)
    assert (code, written["preset"], written["llm"], written["offline"]) == (
        0,
        "healthcare",
        "ollama/llama3.2",
        False,
    )
    found = read_project(project / "llama-presets.toml")
    assert (found.storage, found.sources) == (str(project / "s"), (str(project / "docs"),))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "healthcare"], "--preset and --documents, or take the proposals with --yes"),
        (["--preset", "helthcare", "--yes"], "Did you mean 'healthcare'?"),
        (["--documents", "nowhere", "--yes"], "There is no 'nowhere'"),
        (
            ["--preset", "healthcare", "--llm", "openai/gpt-5-mini", "--yes"],
            "keeps everything on this machine",
        ),
        (["--llm", "no such model", "--yes"], "no such model"),
    ],
)
def test_init_writes_nothing_that_cannot_work(run, project: Path, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    """What cannot be built is refused before the file is made."""
    (project / "llama-presets.toml").unlink()
    code, _, err = run("init", *arguments)
    assert code == 2 and message in err and not (project / "llama-presets.toml").exists()


def test_a_project_about_its_own_folder_hides_its_storage(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """The index does not read itself at the next ingest."""
    (project / "llama-presets.toml").unlink()
    run("init", "--preset", "healthcare", "--documents", ".", "--yes")
    assert read_project(project / "llama-presets.toml").storage == str(project / ".llama-presets-storage")


# -- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_is_the_generated_one() -> None:
    """`make schema` writes it, whenever a setting is added or changed."""
    assert project_schema.FILE.read_text("utf-8") == project_schema.text()


def test_the_schema_knows_every_setting_and_accepts_what_init_writes(run, project: Path) -> None:  # type: ignore[no-untyped-def]
    """A validator of JSON Schema agrees with the reader on right and wrong files."""
    jsonschema = pytest.importorskip("jsonschema", reason="comes with the notebooks of the dev extra")
    schema = project_schema.project_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema).is_valid
    assert set(schema["properties"]["settings"]["properties"]) == set(Settings().to_dict())
    (project / "llama-presets.toml").unlink()
    run("init", "--yes")
    assert check(tomllib.loads((project / "llama-presets.toml").read_text())) and check(tomllib.loads(FILE))
    for wrong in ('storage = "x"', 'preset = "x"', 'preset = "healthcare"\ntop_k = 3',
                  'preset = "healthcare"\n[settings]\npii = "never"'):  # fmt: skip
        assert not check(tomllib.loads(wrong))
