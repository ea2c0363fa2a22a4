import shutil

import pytest
import torch
from plain_adapters import CONFIGS, plain_adapter
from transformers import pipeline

import train_space
from adapter_arena.adapters import export, store
from adapter_arena.errors import AdapterError
from adapter_arena.models import loading
from adapter_arena.serve import parity
from adapter_arena.serve.engine import Engine

TEXTS = ["The acting is superb .", "The plot is awful and the ending a mess .", "fine"]
MERGEABLE = [name for name in CONFIGS if name != "prompt"]


@pytest.mark.parametrize("name", MERGEABLE)
def test_an_exported_model_answers_as_the_served_adapter(tiny, tmp_path, name):
    adapter = store.read(plain_adapter(tiny, CONFIGS[name], tmp_path / name), tiny)
    folder = export.write(adapter, tiny, tmp_path / "out")
    assert parity.largest_difference(folder, adapter, tiny, TEXTS) < 0.02  # bf16 against fp32


def test_the_exported_folder_is_a_plain_model_with_names_and_temperature(trained, tiny, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "mine")
    adapter = store.read(folder, tiny)
    out = export.write(adapter, tiny, tmp_path / "out")
    answers = pipeline("text-classification", str(out), top_k=None)(TEXTS[:1])[0]
    assert {answer["label"] for answer in answers} == set(adapter.labels)
    served = Engine(tiny)
    served.add(adapter)
    wanted = served.predict(TEXTS[:1])[0].scores
    for answer in answers:
        assert answer["score"] == pytest.approx(wanted[answer["label"]], abs=0.02)


def test_full_fine_tuning_is_exported(tiny, adapter_of, tmp_path):
    adapter = store.read(adapter_of("full"), tiny)
    folder = export.write(adapter, tiny, tmp_path / "out")
    assert parity.largest_difference(folder, adapter, tiny, TEXTS) < 0.02
    assert "quantization_config" not in (folder / "config.json").read_text()


@pytest.mark.slow
def test_an_onnx_file_answers_as_the_served_adapter(trained, tiny, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    adapter = store.read(trained, tiny)
    folder = export.write(adapter, tiny, tmp_path / "out", "onnx")
    session = onnxruntime.InferenceSession(folder / export.ONNX_FILE)
    tokenizer = loading.load_tokenizer(tiny)
    served = Engine(tiny)
    served.add(adapter)
    for texts in (TEXTS, TEXTS[:1]):
        rows = tokenizer(texts, padding=True, return_tensors="np")
        names = {each.name for each in session.get_inputs()}
        logits = session.run(None, {name: value for name, value in rows.items() if name in names})[0]
        found = torch.tensor(logits).softmax(-1)
        wanted = [list(answer.scores.values()) for answer in served.predict(texts)]
        assert (found - torch.tensor(wanted)).abs().max() < 0.02


def test_a_failed_export_names_the_reason_and_leaves_nothing(tiny, trained, tmp_path, work, capsys):
    adapter = store.read(plain_adapter(tiny, CONFIGS["prompt"], tmp_path / "prompt"), tiny)
    with pytest.raises(AdapterError, match="puts tokens before the text"):
        export.write(adapter, tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out-*"))
    shutil.copytree(trained, work / "adapters" / "mine")
    command = ["--export", "mine", "--base-model", tiny.id]
    assert train_space.main([*command, "--format", "gguf"]) == 1
    assert "Unknown format 'gguf'" in capsys.readouterr().err
    assert train_space.main(command) == 0
    assert "text-embeddings-router --model-id exports/mine" in capsys.readouterr().out
    assert train_space.main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert train_space.main(["--export", "nothing"]) == 1
    assert "There is no adapter folder" in capsys.readouterr().err
