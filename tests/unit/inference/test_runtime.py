"""Local models on ONNX Runtime: the numbers of transformers, from the files of each architecture."""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.models import Pooling, Transformer

from llama_index_presets import CrossEncoderRerank, LocalEmbedding
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.errors import MissingExtraError, ModelError, SettingsError
from llama_index_presets.inference import backends, graph_cache
from llama_index_presets.inference.backends import choose_backend
from llama_index_presets.inference.graphs import ENCODERS, relative_buckets
from llama_index_presets.inference.model_folder import read_model_folder
from llama_index_presets.inference.session import run_side_by_side
from llama_index_presets.inference.text_encoder import OnnxTextEncoder

TEXTS = ["A cat sat.", "Insulin is kept between two and eight degrees.", "x", "Snow fell. " * 12]
POSITIONS = 70
SIZES: dict[str, Any] = dict(
    vocab_size=30_522,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=POSITIONS,
    initializer_range=0.3,
)
DISTILBERT: dict[str, Any] = dict(
    vocab_size=30_522, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=POSITIONS
)
SHAPES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": SIZES | {"pad_token_id": 1},
    "xlm-roberta": SIZES | {"pad_token_id": 1, "type_vocab_size": 1},
    "camembert": SIZES | {"pad_token_id": 1, "type_vocab_size": 1},
    "electra": SIZES | {"embedding_size": 16},
    "mpnet": SIZES | {"pad_token_id": 1},
    "distilbert": DISTILBERT,
}


MINILM_FOLDER = find_weights(embedding_model("all-MiniLM-L6-v2"), allow_download=False)
"""Where `make setup` put the weights; looked up before a test moves the cache."""


@functools.cache
def tokenizer() -> Any:
    """That of MiniLM, read once."""
    return transformers.AutoTokenizer.from_pretrained(MINILM_FOLDER, model_max_length=64)


def saved(folder: Path, kind: str, *, scores: bool = False, dtype: Any = torch.float32) -> str:
    """A tiny model with random weights in the standard format, with the tokenizer of MiniLM."""
    torch.manual_seed(3)
    # The tokenizer marks the second text of a pair with type 1.
    more = {"num_labels": 1, "type_vocab_size": 2} if scores else {}
    config = transformers.AutoConfig.for_model(kind, **SHAPES[kind] | more)
    kinds = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModel
    kinds.from_config(config).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def with_pooling(folder: Path, kind: str, mode: str) -> str:
    """The same, in the format of sentence-transformers."""
    inner = Transformer(saved(folder / "inner", kind))
    SentenceTransformer(modules=[inner, Pooling(32, pooling_mode=mode)], device="cpu").save_pretrained(
        str(folder / "model")
    )
    return str(folder / "model")


def test_every_architecture_is_tried() -> None:
    """A new one comes with its sizes here."""
    assert SHAPES.keys() == ENCODERS.keys()


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_written_graph_gives_the_vectors_of_transformers(kind: str, tmp_path: Path) -> None:
    """Lengths are mixed, so that padding and positions matter."""
    folder = saved(tmp_path, kind)
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = LocalEmbedding(folder, backend="onnx").get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_written_graph_gives_the_scores_of_cross_encoder(kind: str, tmp_path: Path) -> None:
    """The raw outputs of `CrossEncoder.predict` to 1e-4."""
    folder = saved(tmp_path, kind, scores=True)
    encoder = CrossEncoder(folder, device="cpu")
    expected = encoder.predict([("a toxin", text) for text in TEXTS], activation_fn=torch.nn.Identity())
    found = CrossEncoderRerank(folder, backend="onnx")._loaded().logits("a toxin", TEXTS)
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_pooling_is_read_from_the_folder(mode: str, tmp_path: Path) -> None:
    """Each of sentence-transformers, by the file that it wrote."""
    folder = with_pooling(tmp_path, "bert", mode)
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = LocalEmbedding(folder, backend="onnx").get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_computed_in_float32(dtype: Any, tmp_path: Path) -> None:
    """A file of half the size gives what its numbers give in float32."""
    folder = saved(tmp_path, "bert", dtype=dtype)
    stock = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": torch.float32})
    found = LocalEmbedding(folder, backend="onnx").get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(found, stock.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_written_graph_is_kept_beside_the_weights_and_made_anew_when_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A second load reads it; one with a changed byte is noticed, replaced, and gives the same vectors."""
    folder = read_model_folder(Path(saved(tmp_path, "bert")))
    expected = OnnxTextEncoder(folder).encode(TEXTS, 8)
    (kept,) = tmp_path.glob(".onnx-graphs/*")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])
    with caplog.at_level(logging.WARNING):
        found = OnnxTextEncoder(folder).encode(TEXTS, 8)
    assert "is damaged; it is written anew" in caplog.text
    assert kept.read_bytes() == whole
    np.testing.assert_array_equal(found, expected)


def test_a_folder_that_cannot_be_written_has_its_graph_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the folder of graphs would be, as a read-only disk refuses it."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "cache"))
    folder = Path(saved(tmp_path / "model", "bert"))
    (folder / graph_cache._FOLDER).write_text("")
    OnnxTextEncoder(read_model_folder(folder))
    assert len(list((tmp_path / "cache" / "graphs").glob("*.graph"))) == 1


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """Not an error of the runtime, but the file and what to do."""
    folder = Path(saved(tmp_path, "bert"))
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)
    with pytest.raises(ModelError, match=r"model.safetensors' cannot be read as safetensors .*Download"):
        OnnxTextEncoder(read_model_folder(folder))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    """A configuration that says 'roberta' over the weights of a MPNet does not run as something in between."""
    folder = Path(saved(tmp_path, "mpnet"))
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "roberta"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match=r"The weights have no 'encoder.layer.0.attention.self.query.weight'"
    ):
        OnnxTextEncoder(read_model_folder(folder))


def changed(folder: Path, **values: Any) -> Path:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "modernbert"}, "its architecture 'modernbert'"),
        ({"position_embedding_type": "alibi"}, r"its positions \('alibi'\)"),
        ({"hidden_act": "xielu"}, "its activation 'xielu'"),
    ],
)
def test_a_model_that_no_graph_is_written_for_says_what_to_install(
    values: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """One line with the reason and the extra; `auto` takes torch instead and says the same reason."""
    folder = read_model_folder(changed(Path(saved(tmp_path, "bert")), **values))
    with pytest.raises(ModelError, match=rf'because of {reason}. Run: pip install ".*\[local-torch\]"'):
        choose_backend(folder, "onnx")
    assert choose_backend(folder, "auto").backend == "torch"


@pytest.mark.parametrize("backend", ["auto", "onnx", "torch"])
def test_code_of_a_repository_is_not_run_without_consent(backend: Any, tmp_path: Path) -> None:
    """Neither by this runtime, which could not, nor by torch, which would."""
    folder = changed(Path(saved(tmp_path, "bert")), auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(ModelError, match="code of its own, which is not run without consent"):
        LocalEmbedding(str(folder), backend=backend).get_text_embedding("x")
    consent = choose_backend(read_model_folder(folder), "auto", trust_remote_code=True)
    assert (consent.backend, "its own code" in consent.reason) == ("torch", True)


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ({}, "onnx"),
        ({"precision": "bfloat16"}, "torch"),
        ({"device": "cuda"}, "torch"),
        ({"device": "cpu"}, "onnx"),
    ],
)
def test_auto_takes_onnx_but_for_what_only_torch_does(
    options: dict[str, str], backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (
        choose_backend(read_model_folder(Path(saved(tmp_path, "bert"))), "auto", **options).backend == backend
    )


def test_onnx_refuses_what_only_torch_does(tmp_path: Path) -> None:
    """Asked for by name, it does not become something else in silence."""
    folder = read_model_folder(Path(saved(tmp_path, "bert")))
    with pytest.raises(SettingsError, match="not with device='cuda'"):
        choose_backend(folder, "onnx", device="cuda")
    with pytest.raises(SettingsError, match="backend is 'jax'; expected one of auto, onnx, torch, openvino"):
        choose_backend(folder, "jax")


def test_buckets_are_those_of_transformers() -> None:
    """Also far away, where they grow with the logarithm."""
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    places = torch.arange(400)
    expected = MPNetEncoder.relative_position_bucket(places[None, :] - places[:, None], num_buckets=32)
    np.testing.assert_array_equal(relative_buckets(400), expected.numpy())


@pytest.mark.slow("a process that imports LlamaIndex and loads two models: 5 s of CPU")
def test_no_torch_is_imported_by_embedding_and_re_ranking(tmp_path: Path) -> None:
    """In a process of its own: neither torch nor what stands on it, nor scikit-learn, nor scipy."""
    script = textwrap.dedent(
        """
        import sys
        from llama_index_presets import CrossEncoderRerank, LocalEmbedding
        from llama_index.core.schema import NodeWithScore, TextNode
        LocalEmbedding("all-MiniLM-L6-v2", allow_download=False).get_text_embedding_batch(["x", "y"])
        CrossEncoderRerank(sys.argv[1]).postprocess_nodes([NodeWithScore(node=TextNode(text="x"))], query_str="q")
        heavy = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy"}
        print(sorted(heavy & sys.modules.keys()))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, saved(tmp_path, "bert", scores=True)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_hubs_own_onnx_file_is_used_where_a_folder_has_it(tmp_path: Path) -> None:
    """By ids to the vectors of all tokens, as repositories export it; no weights beside it are needed."""
    folder = Path(saved(tmp_path, "bert"))
    table = np.random.default_rng(0).normal(size=(30_522, 8)).astype(np.float32)
    node = onnx.helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])
    ids = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["texts", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    vectors = onnx.helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(
        [node], "g", ids, [vectors], [onnx.numpy_helper.from_array(table, "table")]
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    (folder / "onnx").mkdir()
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "onnx" / "model.onnx"
    )
    (folder / "model.safetensors").unlink()
    found = LocalEmbedding(str(folder), device="cpu").get_text_embedding_batch(TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    for vector, text in zip(found, TEXTS, strict=True):
        mean = table[tokenizer(text, truncation=True, max_length=64)["input_ids"]].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def as_hub_cache(folder: Path, blobs: Sequence[Path]) -> Path:
    """The folder with its weights as links to blobs elsewhere, a file to a folder, as the hub's cache has them."""
    files = sorted(folder.glob("model*.safetensors"))
    for file, blob in zip(files, blobs, strict=True):
        blob.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blob)
        file.symlink_to(blob)
    return folder


def in_two_files(folder: Path) -> Path:
    """Weights of a folder in two files and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize(
    ("files", "blobs", "placeholders"),
    [(1, ["blobs/a"], 0), (2, ["blobs/a", "blobs/b"], 0), (2, ["one/a", "other/b"], 30)],
    ids=["one link", "two links", "two folders"],
)
def test_weights_are_mapped_where_they_lie(
    files: int, blobs: list[str], placeholders: int, tmp_path: Path
) -> None:
    """Also behind the links of the hub's cache; weights in several folders are given to the runtime instead."""
    folder = Path(saved(tmp_path / "model", "bert"))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    folder = as_hub_cache(in_two_files(folder) if files == 2 else folder, [tmp_path / one for one in blobs])
    np.testing.assert_allclose(
        OnnxTextEncoder(read_model_folder(folder)).encode(TEXTS, 8), expected, atol=1e-5
    )
    (kept,) = folder.glob(".onnx-graphs/*")
    names = json.loads(kept.read_bytes()[32:].partition(b"\n")[0])
    assert len(names) >= placeholders and (placeholders > 0 or not names)


def test_weights_that_begin_at_an_odd_byte_are_copied(tmp_path: Path) -> None:
    """The format aligns nothing: a header whose length is odd gives the same vectors."""
    folder = Path(saved(tmp_path, "bert"))
    expected = OnnxTextEncoder(read_model_folder(folder)).encode(TEXTS, 8)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip() + b" "
    header += b" " * (len(header) % 2 == 0)
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    np.testing.assert_allclose(
        OnnxTextEncoder(read_model_folder(folder)).encode(TEXTS, 8), expected, atol=1e-6
    )


def test_a_brief_command_gives_the_same_vectors() -> None:
    """What `ask` leaves out is a matter of time and memory: MiniLM's vectors agree to the last digits."""
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from llama_index_presets.packages.command_process import is_brief, run_as_command
        if sys.argv[1:]:
            run_as_command(brief=True)
        from llama_index_presets.inference.model_folder import read_model_folder
        from llama_index_presets.inference.text_encoder import OnnxTextEncoder
        encoder = OnnxTextEncoder(read_model_folder(Path({str(MINILM_FOLDER)!r})))
        print(is_brief(), *encoder.encode(["How is insulin stored?"], 1)[0].tolist())
    """)
    found = {}
    for more in ([], ["brief"]):
        done = subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, check=True)
        brief, *vector = done.stdout.split()
        found[brief] = np.array([float(one) for one in vector])
    np.testing.assert_allclose(found["True"], found["False"], atol=1e-6)


def test_a_fork_after_a_question_answers_as_its_parent() -> None:
    """Sessions keep no threads between runs: a forked child embeds with its parent's model, and so does the parent."""
    code = textwrap.dedent("""
        import multiprocessing
        from llama_index_presets import LocalEmbedding
        model = LocalEmbedding("all-MiniLM-L6-v2", backend="onnx", allow_download=False)
        texts = ["A cat sat.", "Insulin is kept cold."] * 20
        before = model.get_text_embedding_batch(texts)
        def work(queue):
            queue.put(model.get_text_embedding_batch(texts) == before)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=work, args=(queue,)) for _ in range(2)]
        for child in children:
            child.start()
        print([queue.get(timeout=60) for _ in children], model.get_text_embedding_batch(texts) == before)
        for child in children:
            child.join()
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[0] == "[True, True] True"


def test_a_runtime_that_does_not_load_here_is_one_line(tmp_path: Path) -> None:
    """A wheel for another processor raises ImportError by itself; the line says what to install instead."""
    package = tmp_path / "onnxruntime"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('illegal instruction')")
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from llama_index_presets import LocalEmbedding
        from llama_index_presets.errors import ModelError
        try:
            LocalEmbedding("all-MiniLM-L6-v2", backend="onnx", allow_download=False).get_query_embedding("x")
        except ModelError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "ONNX Runtime is installed, but cannot be loaded here (ImportError: illegal "
    )
    assert done.stdout.endswith('pip install "llama-index-presets[local-torch]", and take backend="torch".\n')


def test_without_either_runtime_the_line_names_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime first; torch where it has no wheel for this Python."""
    monkeypatch.setattr(backends, "installed", lambda module: False)
    monkeypatch.setattr(backends, "onnx_installed", lambda: False)
    with pytest.raises(
        MissingExtraError,
        match=r'presets\[local\]"; where it has no wheel .* "llama-index-presets\[local-torch\]"$',
    ):
        choose_backend(read_model_folder(MINILM_FOLDER), "auto")


IMPORTED_BEFORE = """
import os, warnings
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
{first}
from llama_index_presets.inference.session import _runtime
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    _runtime()
print(os.environ["ORT_DISABLE_TELEMETRY"], [str(one.message)[:40] for one in heard])
"""


@pytest.mark.parametrize(
    ("first", "heard"),
    [("", "[]"), ("import onnxruntime", "['Another package imported ONNX Runtime fi']")],
)
def test_the_runtime_reports_nothing_to_its_maker(first: str, heard: str) -> None:
    """Its telemetry is off before its first import; where another package was faster, a warning says what to set."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_BEFORE.format(first=first)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"1 {heard}"


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_work_side_by_side_keeps_its_order_and_ends_with_the_first_error(threads: int) -> None:
    """The calling thread takes its share; what fails in any of them is raised, and nothing new is begun."""
    assert run_side_by_side(lambda item: item * 2, list(range(5)), threads) == [0, 2, 4, 6, 8]
    assert run_side_by_side(str, [], threads) == []
    begun: list[int] = []

    def fail(item: int) -> None:
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=r"item \d"):
        run_side_by_side(fail, list(range(100)), threads)
    assert len(begun) <= threads


def test_work_side_by_side_runs_on_the_calling_thread_too() -> None:
    """Two threads for two items are this one and another: each waits for the other here."""
    both = threading.Barrier(2, timeout=30)

    def meet(_: int) -> int:
        both.wait()
        return threading.get_ident()

    idents = run_side_by_side(meet, [0, 1], 2)
    assert threading.get_ident() in idents
    assert len(set(idents)) == 2
