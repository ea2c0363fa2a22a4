import json
import shutil

import pytest
import torch
from conftest import make_base
from peft import PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from adapter_arena.adapters import store
from adapter_arena.errors import AdapterError
from adapter_arena.models import bases, loading, servable
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve.engine import Engine
from adapter_arena.serve.served import Prediction


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of a valid adapter folder, to be damaged."""
    return shutil.copytree(trained, tmp_path / "broken")


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def as_prompt(folder, **values):
    change_config(folder, peft_type="PROMPT_TUNING", num_virtual_tokens=4)
    change_config(folder, **values)


def without_results(folder):
    (folder / "results.json").unlink()


def test_a_valid_folder_is_read(trained, tiny):
    adapter = store.read(trained, tiny)
    assert adapter.method == "lora"
    assert adapter.labels == ["negative", "positive"]
    assert not adapter.is_full
    assert adapter.base_model == tiny.label


def test_an_adapter_of_plain_peft_has_default_labels_and_no_results(folder, tiny):
    without_results(folder)
    adapter = store.read(folder, tiny)
    assert adapter.labels == ["LABEL_0", "LABEL_1"]
    assert adapter.results is None
    assert adapter.temperature == 1.0


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ("labels: [bad, good]", ["bad", "good"]),
        ("id2label: {0: bad, 1: good}", ["bad", "good"]),
        ("labels: [bad, good, good]", ["LABEL_0", "LABEL_1"]),
        ("labels: [bad", ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_of_an_adapter_without_results_are_read_from_its_card(folder, tiny, metadata, labels):
    without_results(folder)
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n")
    assert store.read(folder, tiny).labels == labels


def test_a_head_of_any_number_of_outputs_is_refused(folder, tiny):
    """A tensor without columns takes no bytes in the file, whatever its number of rows."""
    without_results(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(name for name in weights if name.endswith("classifier.weight"))
    weights[key] = torch.zeros(10**9, 0)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="head of 1,000,000,000 outputs, over the limit"):
        store.read(folder, tiny)


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
    ("damage", "message"),
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
        (lambda f: change_config(f, peft_type="NEW"), "PEFT type 'NEW', which is not supported; supported: LORA"),
        (lambda f: change_config(f, task_type="CAUSAL_LM"), "for task 'CAUSAL_LM', not SEQ_CLS"),
        (lambda f: change_config(f, r=1_000_000), "rank 1000000"),
        (
            lambda f: change_config(f, auto_mapping={"base_model_class": "X"}),
            "was trained as a 'X', not as a …ForSequenceClassification",
        ),
        (lambda f: change_config(f, peft_type="LOHA"), "PEFT type 'LOHA', which is not supported"),
        (lambda f: change_config(f, peft_type=["LORA"]), "which is not supported"),
        (lambda f: change_config(f, layer_replication=[[0, 2]] * 9), "repeats the base's layers"),
        (lambda f: change_config(f, monteclora_config={"buffer_size": 9}), "allocates any number of samples"),
        (lambda f: change_config(f, rank_pattern={"query": 10**6}), "rank_pattern 1000000, over the limit of 1,024"),
        (lambda f: change_config(f, use_bdlora={"nblocks": -(10**6)}), "use_bdlora 1000000"),
        (lambda f: change_config(f, trainable_token_indices=[1] * 2000), "trainable_token_indices 2000"),
        (lambda f: change_config(f, num_vectors=10**9), "num_vectors 1000000000"),
        (lambda f: as_prompt(f, num_virtual_tokens=10**6), "num_virtual_tokens 1000000"),
        (lambda f: as_prompt(f, token_dim=3_000_000), "token_dim 3000000, but tiny-bert has 64"),
        (lambda f: as_prompt(f, token_dim=128), "token_dim 128, but"),
        (lambda f: as_prompt(f, num_layers=3), "num_layers 3, but"),
        (lambda f: as_prompt(f, num_attention_heads=1), "num_attention_heads 1, but"),
        (lambda f: as_prompt(f, num_transformer_submodules=1000), "num_transformer_submodules 1000, but"),
    ],
)
def test_broken_folders_are_refused_with_the_reason(folder, tiny, damage, message):
    damage(folder)
    with pytest.raises(AdapterError, match=message) as caught:
        store.read(folder, tiny)
    assert "\n" not in str(caught.value)
    assert "broken" in str(caught.value)


def test_full_model_of_another_base_is_refused(tmp_path, tiny):
    shutil.copytree(tiny.folder, tmp_path / "full")
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    (tmp_path / "full" / "config.json").write_text(json.dumps(config | {"_name_or_path": DEFAULT_BASE}))
    with pytest.raises(AdapterError, match="embeddings have another shape"):
        store.read(tmp_path / "full", bases.find(DEFAULT_BASE))


@pytest.mark.parametrize(
    "values",
    [
        {"lora_alpha": 4096, "alpha_pattern": {"query": 4096}, "trainable_token_indices": [599]},
        {"peft_type": "ADALORA", "total_step": 10**6, "rank_pattern": {"query": [True] * 1024}},
        {"peft_type": "VERA", "projection_prng_key": 2**31},
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
        {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": 4096, "token_dim": None},
        {"peft_type": "P_TUNING", "token_dim": 64, "num_layers": 2, "num_attention_heads": 2,
         "num_transformer_submodules": 1},
    ],
)  # fmt: skip
def test_numbers_that_allocate_nothing_and_sizes_of_the_base_are_accepted(folder, tiny, values):
    config = json.loads((folder / "adapter_config.json").read_text())
    assert servable.adapter_problem(config | values, tiny) is None


_PLACES = {"task_type": "SEQ_CLS", "modules_to_save": ["pooler", "classifier"]}
_QUERY = _PLACES | {"target_modules": ["query", "value"]}
_OTHERS = {
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4, "encoder_hidden_size": 8},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "LN_TUNING": _PLACES | {"target_modules": ["LayerNorm"]},
    "ADALORA": _QUERY | {"total_step": 10},
    "IA3": _QUERY | {"feedforward_modules": []},
    "OFT": _QUERY | {"oft_block_size": 4},
}


@pytest.mark.parametrize("peft_type", servable.PEFT_TYPES)
def test_every_supported_type_answers_on_four_bits(tiny, tmp_path, peft_type):
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)](**_PLACES | _OTHERS.get(peft_type, _QUERY))
    model = get_peft_model(loading.load_model(tiny, "fp32"), config)
    model.peft_config["default"].base_model_name_or_path = tiny.id
    model.save_pretrained(tmp_path / "other", save_embedding_layers=False)
    engine = Engine(tiny, merged_mb=0)
    engine.add_folder(tmp_path / "other")
    assert isinstance(engine.predict(["a wonderful film"])[0], Prediction)
    engine.close()


def test_a_full_model_of_the_base_is_read(tmp_path, tiny):
    adapter = store.read(shutil.copytree(tiny.folder, tmp_path / "full"), tiny)
    assert adapter.method == "full"
    assert adapter.is_full


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers 1000000, but tiny-bert has 2"),
        ({"intermediate_size": 10**9}, "intermediate_size 1000000000, but"),
        ({"num_labels": 10**9}, "num_labels 1000000000, over the limit"),
        ({"model_type": "llama"}, "its model_type is not bert"),
        ({"model_type": None}, "its model_type is not bert"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "sets auto_map, which runs its own code"),
    ],
)
def test_a_full_model_of_other_sizes_is_refused_before_it_is_built(tmp_path, tiny, values, message):
    path = shutil.copytree(tiny.folder, tmp_path / "full") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(AdapterError, match=message):
        store.read(path.parent, tiny)


def test_a_size_by_its_other_name_is_refused_too(tmp_path):
    base = make_base(tmp_path / "base", "distilbert")
    path = shutil.copytree(base.folder, tmp_path / "full") / "config.json"
    store.read(path.parent, base)
    config = {"num_hidden_layers": 10**6} | json.loads(path.read_text())  # which has n_layers
    path.write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="num_hidden_layers 1000000, but base has 2"):
        store.read(path.parent, base)


def test_missing_folder_is_named(tmp_path, tiny):
    with pytest.raises(AdapterError, match="There is no adapter folder"):
        store.read(tmp_path / "nothing", tiny)


def test_saving_replaces_the_old_folder_completely(tmp_path):
    for content in ("old", "new"):
        with store.saving("a", tmp_path) as staging:
            (staging / "file").write_text(content)
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o644


def test_failed_saving_leaves_the_old_folder(tmp_path):
    with store.saving("a", tmp_path) as staging:
        (staging / "file").write_text("old")
    with pytest.raises(IsADirectoryError), store.saving("a", tmp_path) as staging:
        staging.write_text("fails half-way")
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert store.folders(tmp_path) == [tmp_path / "a"]


def test_unfinished_folders_are_not_listed(tmp_path):
    (tmp_path / ".a-x1").mkdir()
    (tmp_path / "b").mkdir()
    assert [path.name for path in store.folders(tmp_path)] == ["b"]


def test_an_adapter_that_would_change_the_base_is_refused(tiny, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "pissa")
    content = json.loads((folder / store.ADAPTER_CONFIG).read_text()) | {"init_lora_weights": "pissa_niter_99999999"}
    (folder / store.ADAPTER_CONFIG).write_text(json.dumps(content))
    with pytest.raises(AdapterError, match="convert it to plain LoRA"):
        store.read(folder, tiny)
