import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from peft_arena import bases, store
from peft_arena.errors import AdapterError


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of a good adapter folder, to be broken."""
    return shutil.copytree(trained, tmp_path / "broken")


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_results(folder):
    (folder / "results.json").unlink()


def test_good_folder_is_read(trained, tiny):
    adapter = store.read(trained, tiny)
    assert (adapter.method, adapter.labels, adapter.is_full) == ("lora", ["negative", "positive"], False)
    assert adapter.base_model == tiny.label


def test_adapter_of_plain_peft_has_made_up_labels_and_unknown_metrics(folder, tiny):
    without_results(folder)
    adapter = store.read(folder, tiny)
    assert (adapter.labels, adapter.results, adapter.temperature) == (["LABEL_0", "LABEL_1"], None, 1.0)


def truncate(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_only(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    torch.save(weights, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def grow_head(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(k for k in weights if k.endswith("classifier.weight"))
    weights[key] = torch.zeros(7, weights[key].shape[1])
    save_file(weights, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors: train it again"),
        (truncate, "adapter_model.safetensors is damaged"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "is damaged"),
        (pickle_only, "only adapter_model.bin, which is pickled and never loaded"),
        (grow_head, "a head of 7 outputs for 2 labels"),
        (lambda f: (f / "adapter_config.json").unlink(), "it is not an adapter folder"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is not JSON"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "not a JSON object"),
        (
            lambda f: change_config(f, base_model_name_or_path="bert-base-uncased"),
            "is for base model bert-base-uncased",
        ),
        (lambda f: change_config(f, peft_type="NEW"), "peft_type 'NEW'"),
        (lambda f: change_config(f, task_type="CAUSAL_LM"), "for task CAUSAL_LM, not SEQ_CLS"),
        (lambda f: change_config(f, r=1_000_000), "rank 1000000"),
        (lambda f: change_config(f, auto_mapping={"base_model_class": "X"}), "classes of its own"),
    ],
)
def test_broken_folders_are_refused_with_the_reason(folder, tiny, harm, says):
    harm(folder)
    with pytest.raises(AdapterError, match=says) as caught:
        store.read(folder, tiny)
    assert "\n" not in str(caught.value)
    assert "broken" in str(caught.value)


def test_full_model_of_another_base_is_refused(tmp_path, tiny):
    shutil.copytree(tiny.folder, tmp_path / "full")
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    (tmp_path / "full" / "config.json").write_text(json.dumps(config | {"_name_or_path": bases.DEFAULT_BASE}))
    with pytest.raises(AdapterError, match="embeddings have another shape"):
        store.read(tmp_path / "full", bases.find(bases.DEFAULT_BASE))


def test_missing_folder_is_named(tmp_path, tiny):
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        store.read(tmp_path / "nothing", tiny)


def test_saving_replaces_the_old_folder_whole(tmp_path):
    for content in ("old", "new"):
        with store.saving("a", tmp_path) as staging:
            (staging / "file").write_text(content)
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o644


def test_failed_saving_leaves_what_was_there(tmp_path):
    with store.saving("a", tmp_path) as staging:
        (staging / "file").write_text("old")
    with pytest.raises(IsADirectoryError), store.saving("a", tmp_path) as staging:
        staging.write_text("fails half-way")
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert store.folders(tmp_path) == [tmp_path / "a"]


def test_half_written_folders_are_not_listed(tmp_path):
    (tmp_path / ".a-x1").mkdir()
    (tmp_path / "b").mkdir()
    assert [path.name for path in store.folders(tmp_path)] == ["b"]
