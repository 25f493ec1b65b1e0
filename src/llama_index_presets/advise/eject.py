"""Export of a preset as a project of plain LlamaIndex code that gives the same answers."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from llama_index_presets import __version__
from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.files.paths import read_path
from llama_index_presets.files.whole_files import replace_file
from llama_index_presets.ingest.chunking.strategies import CHUNKERS
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.checks.offline import go_offline
from llama_index_presets.presets.components.answering import calibration_tables, system_prompt
from llama_index_presets.presets.matrix import COLUMNS, Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.models import LONGEST_CHUNK
from llama_index_presets.presets.project.settings_sources import load_settings, reading_more
from llama_index_presets.presets.settings import LEG_CANDIDATES, RERANK_CANDIDATES, Settings
from llama_index_presets.providers.embedding_models import CATALOGUE, read_embedding_name
from llama_index_presets.providers.language_models import plain_arguments, read_name
from llama_index_presets.providers.language_providers import PROVIDERS
from llama_index_presets.providers.rerankers import DEFAULT_RERANKER
from llama_index_presets.values import Fingerprint

__all__ = ["Ejected", "eject"]

_LINE = 110
"""Characters of a line of the project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejected:
    """Result of an export: the files that were written.

    Attributes:
        folder: Where.
        files: Names of the files.
        extras: Extras of llama-index-presets that the project installs.
        notices: What the project does not take along, or cannot do on this machine.
    """

    folder: Path
    files: tuple[str, ...]
    extras: tuple[str, ...]
    notices: tuple[str, ...]


def eject(
    preset: str,
    folder: str | Path,
    *,
    offline: bool = False,
    settings: Mapping[str, Any] | Settings | str | Path | None = None,
    force: bool = False,
) -> Ejected:
    """Write a project that needs neither `build` nor anything else of `llama_index_presets.presets`.

    Args:
        preset: A row of the matrix.
        folder: Where the project goes; made when missing.
        offline: As for `build`.
        settings: As for `build`; their values stand at the top of ``app.py``.
        force: Whether files of these names are replaced in a folder that is not empty.

    Raises:
        UnknownPresetError: No such preset.
        SettingsError: A setting is wrong, the folder is not empty, a part of the preset has no plain form, or the
            settings promise encryption or the removal of personal data, which the project has not.
        StoreWriteError: The folder cannot be written.

    Example:
        >>> import tempfile
        >>> eject("knowledge-base", tempfile.mkdtemp(), offline=True).files
        ('README.md', 'app.py', 'pyproject.toml', 'requirements.txt')
    """
    row = find_preset(preset)
    values, origins = load_settings(settings, preset)
    row = row.with_settings(values)
    target, notices = read_path(folder, "The folder", links=False), []
    if offline:
        found = go_offline(row, target / "storage", values, ())
        row, notices = found.row, list(found.notices)
    pieces = _pieces(row, values)
    if row.llm == "extractive" and embedding_model(row.embedding).modality != "image":
        values = reading_more(values, origins)
    _check(target, force)
    notices += _left_behind(values)
    extras = _extras(row)
    constants = _constants(row, values, download=not offline and row.monitoring != "local")
    app = _app(row, offline, constants, pieces)
    written = {
        "README.md": _readme(row, offline, notices, app),
        "app.py": app,
        "pyproject.toml": _text("pyproject.toml").substitute(preset=row.name),
        "requirements.txt": f"llama-index-presets[{','.join(extras)}]=={__version__}\n",
    }
    _write(target, written)
    return Ejected(folder=target, files=tuple(sorted(written)), extras=extras, notices=tuple(notices))


# -- what the project is made of --------------------------------------------------------------------------------------


def _pieces(row: Preset, values: Settings) -> list[str]:
    """Names of the code templates, in the order in which data flows."""
    if read_embedding_name(row.embedding).provider != CATALOGUE:
        raise SettingsError(
            f"The embedding '{row.embedding}' has no plain form yet: the length of its vectors is known only once it "
            "has embedded. Choose one of the catalogue."
        )
    if values.second_embedding or values.num_queries > 1 or values.hyde:
        raise SettingsError(
            "second_embedding, num_queries and hyde have no plain form yet; leave them out, and pass more=, "
            "num_queries= or hyde= to HybridFusionRetriever in the project."
        )
    if values.chunk_context == "llm":
        raise SettingsError(
            "chunk_context 'llm' has no plain form: its cache and ceiling are the engine's. Choose 'title', or add the "
            "sentences to the metadata of your documents."
        )
    model = embedding_model(row.embedding)
    images = model.modality == "image"
    provider = "clip" if images else "local" if model.provider == "local" else "openai"
    shown = values.chunking if values.chunking in ("hierarchical", "sentence-window") else "none"
    names = [
        f"embedding/{provider}",
        f"chunker/{'semantic' if values.chunking == 'semantic' else 'plain'}",
        f"store/{row.store}",
        f"widening/{shown}",
        f"pattern/{'images' if images else row.pattern}",
        _llm_piece(row),
        f"monitoring/{'basic' if row.monitoring == 'metrics' else row.monitoring}",
        "app",
    ]
    for name in names:
        if not _file(f"{name}.py").is_file():
            raise SettingsError(f"'{name.partition('/')[2]}' has no plain form yet; choose another part.")
    return names


def _constants(row: Preset, values: Settings, *, download: bool) -> dict[str, Any]:
    """Every setting of the project; those that its code does not name are left out when it is written."""
    model = embedding_model(row.embedding)
    chunk_tokens = min(model.max_tokens, values.chunk_tokens or LONGEST_CHUNK)
    more = {"embed_model": None} if values.chunking == "semantic" else {}
    chunker = CHUNKERS[values.chunking](tokenize=str.split, max_tokens=chunk_tokens, **more)
    widened = values.chunking in ("hierarchical", "sentence-window")
    reranked = row.pattern == "advanced"
    retrieved = (values.candidates or RERANK_CANDIDATES) if reranked else values.top_k * (4 if widened else 1)
    legs = max(values.candidates or LEG_CANDIDATES, retrieved)
    share, floor = values.vector_weight, values.answer_floor
    dim = values.dimensions or model.dim
    return {
        "PRESET": row.name,
        "EMBEDDING": row.embedding,
        "DIMENSIONS": dim,
        "SHORTENED_TO": values.dimensions,
        "DOWNLOAD": download,
        "CHUNKING": values.chunking,
        "CHUNK_TOKENS": chunk_tokens,
        "CHUNK_CONTEXT": values.chunk_context,
        "QUESTION_FILTERS": values.question_filters,
        "BATCH_CHUNKS": values.batch_chunks,
        "FINGERPRINT": str(Fingerprint(model=row.embedding, dim=dim, chunker=chunker.name)),
        "FUSION": values.fusion,
        "WEIGHTS": None if share is None else [share, 1 - share],
        "ON_LEG_ERROR": values.on_leg_error,
        "LEG_TIMEOUT_S": values.leg_timeout_s,
        "CANDIDATES": legs if row.pattern == "hybrid" else retrieved,
        "RETRIEVED": retrieved,
        "RERANKER": values.reranker or find_reranker(DEFAULT_RERANKER) or DEFAULT_RERANKER
        if reranked
        else "",
        "BLEND": values.blend,
        "TOP_K": values.top_k,
        "IMAGES": model.modality == "image",
        "ANSWER_FLOOR": model.answer_floor if floor is None else floor,
        "CALIBRATIONS": calibration_tables(model, values),
        "MIN_CONFIDENCE": values.min_confidence,
        "SYSTEM_PROMPT": system_prompt(values),
        "CROSS_FLOOR": model.cross_floor if floor is None else floor,
        "VERIFY_NUMBERS": values.verify_numbers,
        "CONTEXT_TOKENS": values.context_tokens,
        "LLM_NAME": read_name(row.llm).model,
        "LLM_OPTIONS": plain_arguments(row.llm, row.options.get("llm", {})),
    }


def _llm_piece(row: Preset) -> str:
    """Name of the template for the language model: OpenAI's and the extractive one have their own."""
    provider = read_name(row.llm).provider
    own = provider == "extractive" or (provider == "openai" and not row.options.get("llm"))
    if provider == "extractive" and embedding_model(row.embedding).reads_sentences:
        return "llm/sentences"
    return f"llm/{provider}" if own else "llm/named"


def _left_behind(values: Settings) -> list[str]:
    """Features that the exported project lacks, in sentences.

    Raises:
        SettingsError: The settings promise what the project would not keep.
    """
    if values.encryption == "on" or values.pii in ("redact", "refuse"):
        raise SettingsError(
            f"The project would keep text in clear and whole (encryption is '{values.encryption}', pii is "
            f'\'{values.pii}\'). Keep the preset, or set encryption = "off" and pii = "off" to eject it without.'
        )
    found = []
    if values.encryption != "off":
        found.append("Encryption at rest is not taken along: the project keeps text in clear.")
    if values.pii != "off":
        found.append("The report on personal data at ingest is not taken along.")
    if values.on_outage != "raise":
        found.append("The apology when a service is down is not taken along: its error is raised.")
    return found


def _extras(row: Preset) -> tuple[str, ...]:
    return tuple(sorted({part.extra for part in row.parts().values() if part.extra} | {"readers"}))


# -- how it is written ------------------------------------------------------------------------------------------------


def _app(row: Preset, offline: bool, constants: Mapping[str, Any], pieces: Sequence[str]) -> str:
    texts = [_for_model(_code(name), row) if name == "llm/named" else _code(name) for name in pieces]
    modules = [ast.parse(text) for text in texts]
    bodies = [_body(text) for text in texts]
    body = "\n\n\n".join(bodies)
    if "llm/sentences" in pieces:
        body = body.replace("make_llm(),", 'make_llm(self.embed_model, calibrations.get("sentences")),')
    how = " with offline=True" if offline else ""
    head = (
        f'"""What the preset `{row.name}`{how} of llama-index-presets {__version__} assembles, as plain code.\n\n'
        'Use it:\n\n    python app.py ingest DOCUMENTS\n    python app.py ask "A question?"\n"""'
    )
    used = {name: value for name, value in constants.items() if name in body}
    settings = [
        'STORAGE = Path(os.environ.get("APP_STORAGE") or Path(__file__).parent / "storage")',
        *(f"{name} = {_literal(value, len(name) + 3)}" for name, value in used.items()),
    ]
    return f"{head}\n\n{_imports(modules)}\n\n" + "\n".join(settings) + f"\n\n\n{body}\n"


def _imports(modules: Sequence[ast.Module]) -> str:
    """The imports of all pieces, merged and sorted as ruff sorts them."""
    plain: set[str] = {"os"}
    named: dict[str, set[str]] = {}
    for node in (node for module in modules for node in module.body):
        if isinstance(node, ast.Import):
            plain |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    lines = {
        name: f"from {name} import {', '.join(sorted(names, key=_order))}" for name, names in named.items()
    }
    future = lines.pop("__future__")
    ours = [lines[name] for name in sorted(lines) if name.partition(".")[0] not in sys.stdlib_module_names]
    standard = [lines[name] for name in sorted(lines) if name.partition(".")[0] in sys.stdlib_module_names]
    return "\n\n".join(
        [future, "\n".join([*(f"import {name}" for name in sorted(plain)), *standard]), "\n".join(ours)]
    )


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def _for_model(text: str, row: Preset) -> str:
    """The template of a named language model, for its class and its key."""
    name = read_name(row.llm)
    provider = PROVIDERS.get(name.provider)
    module, kind = (provider.module, provider.kind) if provider else name.model.split(":")
    module, kind = ("llama_index.llms.openai", "OpenAI") if name.provider == "openai" else (module, kind)
    key = row.options.get("llm", {}).get("key")
    keys = (key,) if key else provider.keys if provider else ()
    return (
        text.replace("the_module", module)
        .replace("TheClass", kind)
        .replace("KEY_SENTENCE", f"its key comes from {' or '.join(keys)}" if keys else "it needs no key")
        .replace(", api_key=THE_KEY", f', api_key=os.environ["{key}"]' if key else "")
    )


def _body(text: str) -> str:
    """A piece without its imports."""
    nodes = ast.parse(text).body
    first = next(node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom))
    return "\n".join(text.splitlines()[first.lineno - 1 :]).strip()


def _literal(value: Any, before: int = 0, indent: str = "") -> str:
    """A value as ruff formats it, behind so many characters of its line."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if value.count('"') <= value.count("'") else repr(value)
    if not isinstance(value, dict):
        return repr(value)
    flat = ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items())
    if before + len(flat) + 2 <= _LINE:
        return f"{{{flat}}}"
    deeper = indent + "    "
    lines = [
        f"{deeper}{_literal(key)}: {_literal(one, len(deeper) + len(_literal(key)) + 3, deeper)},\n"
        for key, one in value.items()
    ]
    return "{\n" + "".join(lines) + indent + "}"


def _readme(row: Preset, offline: bool, notices: Sequence[str], app: str) -> str:
    cells = "\n".join(f"| {column} | {getattr(row, column)} |" for column in COLUMNS)
    text = _text("README.md").substitute(
        preset=row.name,
        version=__version__,
        offline=" with `offline=True`" if offline else "",
        cells=cells,
        weights=_weights(row),
        imports=_imported(app),
    )
    return text + "".join(f"\n{notice}\n" for notice in notices)


def _weights(row: Preset) -> str:
    """The line of the README that fetches the weights of a local embedding, once; from then on no network is needed."""
    local = embedding_model(row.embedding).provider == "local"
    return f".venv/bin/llama-presets weights pull {row.embedding}  # once\n" if local else ""


def _imported(app: str) -> str:
    """What an app imports, in words: how much is plain LlamaIndex, and what comes from this package."""
    nodes = [node for node in ast.parse(app).body if isinstance(node, ast.ImportFrom)]
    ours, stock = (
        sorted(
            {alias.name for node in nodes for alias in node.names if (node.module or "").startswith(package)}
        )
        for package in ("llama_index_presets", "llama_index.")
    )
    code = [line for line in app.splitlines() if line.strip()]
    return (
        f"`app.py` has {counted(len(code), 'line')}. Plain LlamaIndex in it: {_names(stock)}. From "
        f"llama-index-presets it imports components alone: {_names(ours)}. Nothing is built from the matrix."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _file(name: str) -> Any:
    return files(__package__).joinpath("project").joinpath(f"{name}.txt")


def _code(name: str) -> str:
    text: str = _file(f"{name}.py").read_text(encoding="utf-8")
    return text


def _text(name: str) -> Template:
    return Template(_file(name).read_text(encoding="utf-8"))


def _check(target: Path, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise SettingsError(f"'{target}' is a file; give a folder.")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise SettingsError(
            f"'{target}' is not empty. Give another folder, or --force to replace files of the project."
        )


def _write(target: Path, written: Mapping[str, str]) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            replace_file(target / name, text)
    except OSError as error:
        raise StoreWriteError(
            f"'{target}' cannot be written ({error.strerror}). Give another folder."
        ) from error
