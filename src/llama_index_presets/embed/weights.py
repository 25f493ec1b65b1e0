"""Lookup of local model weights: explicit path, local cache, package, hub, in that order."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import partial
from pathlib import Path

from llama_index_presets.embed.catalogue import EmbeddingModel
from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.hub import cache_folder, cached_snapshot, download

__all__ = [
    "HUB_FILES",
    "find_hub_model",
    "find_weights",
    "found_weights",
    "has_weights",
    "verify",
    "weights_hash",
]

HUB_FILES = (
    "*.json",
    "*.txt",
    "model.safetensors",
    "onnx/model.onnx",
    "*CLIPModel/*.safetensors",
    "1_Pooling/*",
    "2_Normalize/*",
)
"""Files of a repository that are fetched from the hub, as patterns."""


def find_hub_model(name: str, *, allow_download: bool = True, hub_cache: str | None = None) -> Path:
    """Locate a model of the hub that the catalogue does not know: our cache, the hub's cache, the hub.

    Args:
        name: ``organisation/model``.
        allow_download: Whether the hub may be asked when nothing local is found.
        hub_cache: The hub's cache; None is its usual place.

    Raises:
        ModelError: It is nowhere.
    """
    own = cache_folder() / "models" / name.rsplit("/", 1)[-1]
    if (own / "config.json").is_file() or (own / "modules.json").is_file():
        return own
    if found := cached_snapshot(name, hub_cache=hub_cache):
        return found
    advice = (
        f"Download {name} on a machine with network and copy the folder to {own}, or give the folder's path."
    )
    if not allow_download or os.environ.get("HF_HUB_OFFLINE"):
        raise ModelError(f"The model '{name}' is not on this machine. {advice}")
    try:
        return download(name, hub_cache=hub_cache)
    except MissingExtraError:
        raise
    except Exception as error:
        # the hub's library, and those that it stands on, each have errors of their own
        raise ModelError(
            f"The model '{name}' is not on this machine and could not be downloaded ({type(error).__name__}). {advice}"
        ) from error


def find_weights(model: EmbeddingModel, *, allow_download: bool = True, hub_cache: str | None = None) -> Path:
    """Locate a model folder and verify its hash.

    Args:
        model: A local model of the catalogue.
        allow_download: Whether the hub may be asked when nothing local is found.
        hub_cache: The hub's cache; None is its usual place.

    Returns:
        A folder in sentence-transformers format.

    Raises:
        ModelError: Nothing was found, or the hash differs.
    """
    folder = found_weights(model, hub_cache)[0]
    if folder is None and allow_download and not os.environ.get("HF_HUB_OFFLINE"):
        folder = _from_hub(model, hub_cache)
    if folder is None:
        raise ModelError(_not_found(model))
    verify(folder, model.sha256)
    return folder


def has_weights(model: EmbeddingModel) -> bool:
    """Whether the weights are on this machine; nothing is downloaded and no hash is computed."""
    return found_weights(model)[0] is not None


def found_weights(model: EmbeddingModel, hub_cache: str | None = None) -> tuple[Path | None, str]:
    """Folder of the weights on this machine, and which place it is: own, cache, hub cache, package, or missing."""
    places = (
        ("own", _own_path),
        ("cache", _in_own_cache),
        ("hub cache", partial(_in_hub_cache, hub_cache=hub_cache)),
        ("package", _packaged),
    )
    return next(((folder, name) for name, place in places if (folder := place(model))), (None, "missing"))


def verify(folder: Path, sha256: str | None) -> None:
    """Verify the hash of ``model.safetensors``; None means that no hash is known.

    Raises:
        ModelError: The file is missing or has another hash.
    """
    if sha256 is None:
        return
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"'{folder}' has no model.safetensors. Download the model again.")
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(
            f"'{weights}' has sha256 {found}; expected {sha256}. The file is damaged or is another model: "
            "delete it and download it again, or pass a path to use a model of your own."
        )


def _own_path(model: EmbeddingModel) -> Path | None:
    if model.path is None:
        return None
    folder = Path(model.path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"The folder '{folder}' of the model '{model.name}' is not there. Correct its path.")
    return folder


def weights_hash(folder: Path) -> str:
    """One hash of a model folder: its weights, and the small files that say how they are used."""
    total = hashlib.sha256()
    names = ("*.safetensors", "*.bin", "*.json", "*/config.json")
    for file in sorted({path for name in names for path in folder.glob(name)}):
        with file.open("rb") as stream:
            total.update(
                file.relative_to(folder).as_posix().encode() + hashlib.file_digest(stream, "sha256").digest()
            )
    return total.hexdigest()


def _in_own_cache(model: EmbeddingModel) -> Path | None:
    folder = cache_folder() / "models" / model.name
    found = any((folder / name).is_file() for name in ("config.json", "modules.json"))
    return folder if found else None


def _in_hub_cache(model: EmbeddingModel, hub_cache: str | None = None) -> Path | None:
    return cached_snapshot(model.hub, hub_cache=hub_cache) if model.hub else None


def _packaged(model: EmbeddingModel) -> Path | None:
    spec = importlib.util.find_spec(model.package) if model.package else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / model.package_folder


def _from_hub(model: EmbeddingModel, hub_cache: str | None = None) -> Path | None:
    if model.hub is None:
        return None
    try:
        return download(model.hub, hub_cache=hub_cache)
    except MissingExtraError:
        raise
    except Exception as error:
        raise ModelError(
            f"{_not_found(model)} The hub could not be reached ({type(error).__name__})."
        ) from error


def _not_found(model: EmbeddingModel) -> str:
    return (
        f"The weights of '{model.name}' are not on this machine. Run 'llama-presets weights pull {model.name}' with "
        f"network, or download {model.hub} elsewhere and copy the folder to {cache_folder() / 'models' / model.name}."
    )
