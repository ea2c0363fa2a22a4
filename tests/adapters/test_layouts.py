"""Adapters that other people made: served with the answers of the plain layout, or refused in one line.

FUZZ_EXAMPLES=500 python -m pytest tests/adapters/test_layouts.py    # layouts drawn at random; 40 by default
"""

import json
import os
import random
import shutil
from collections import Counter

import pytest
import torch
from layouts import NAMES, Source, renamed, write, write_weights
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from plain_adapters import CONFIGS, TARGETS
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from adapter_arena.adapters import export, store
from adapter_arena.errors import AdapterError
from adapter_arena.models import bases, loading, tokens
from adapter_arena.serve.engine import Engine

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 40))
TEXTS = ["a wonderful film", "a dull , endless bore", "the acting is superb"]
TARGETS_OF_BERT = TARGETS
LORA = LoraConfig(r=4, **TARGETS)


@pytest.fixture(scope="module")
def engine(tiny):
    one = Engine(tiny, merged_mb=0)
    yield one
    one.close()


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory):
    return Source(tiny, LORA, tmp_path_factory.mktemp("plain") / "lora")


@pytest.fixture(scope="module")
def expected(engine, lora, tmp_path_factory):
    """The answers of the plain layout."""
    return answers(engine, write(tmp_path_factory.mktemp("expected") / "plain", lora.config, lora.tensors))


def answers(engine: Engine, folder) -> torch.Tensor:
    adapter = engine.add_folder(folder)
    try:
        return engine.logits(TEXTS, adapter.name)
    finally:
        engine.remove(adapter.name)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two answers are the same but for the rounding of bf16, which differs with the batch."""
    return torch.allclose(first, second, atol=0.01 * second.abs().max())


def refused(folder, base) -> str:
    """Return the line with which the folder is refused when it is read, before any request."""
    with pytest.raises(AdapterError) as error:
        store.read(folder, base)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def with_config(lora, **values) -> dict:
    return lora.config | values


# ------------------------------------------------------------ names of tensors

RENAMINGS = {
    "trained on the encoder alone": [("base_model.model.bert.", "base_model.model.")],
    "prefix of PEFT's prompts": [("base_model.model.bert.", "base_model.bert.")],
    "one prefix": [("base_model.model.bert.", "base_model.")],
    "data parallel": [("base_model.", "module.base_model.")],
    "compiled": [("base_model.model.", "base_model.model._orig_mod.")],
    "compiled and parallel": [("base_model.", "_orig_mod.module.base_model.")],
    "adapter's name": [(".lora_A.", ".lora_A.default."), (".lora_B.", ".lora_B.default.")],
    "another adapter's name": [(".lora_A.", ".lora_A.mine."), (".lora_B.", ".lora_B.mine.")],
    "wrapped head": [("model.classifier.", "model.classifier.modules_to_save.default.")],
    "half-unwrapped head": [("model.classifier.", "model.classifier.modules_to_save.")],
    "head called score": [("model.classifier.", "model.score.")],
    "own model": [("base_model.model.bert.", "base_model.model.backbone."), ("model.classifier.", "model.fc.")],
}


@pytest.mark.parametrize("kind", RENAMINGS)
def test_tensors_with_other_names_give_the_same_answers(engine, lora, expected, tmp_path, kind):
    folder = write(tmp_path / "a", lora.config, renamed(lora.tensors, *RENAMINGS[kind]))
    assert same(answers(engine, folder), expected)


UNCERTAIN = {
    "another encoder": ([("model.bert.", "model.roberta.")], "4 of 12 tensors match|2 of 12 tensors match"),
    "another architecture": ([("attention.self.query", "attention.q_lin")], "8 of 12 tensors match"),
    "a list of models": ([("model.bert.", "model.0.bert.")], "2 of 12 tensors match"),
    "other layers": ([("layer.1.", "layer.7.")], "8 of 12 tensors match"),
}


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_tensors_without_a_certain_place_are_counted_and_the_nearest_is_named(lora, tmp_path, kind):
    pairs, message = UNCERTAIN[kind]
    line = refused(write(tmp_path / "a", lora.config, renamed(lora.tensors, *pairs)), lora.base)
    assert any(part in line for part in message.split("|")), line
    assert "has no place in tiny-bert, the nearest is base_model.model." in line


def test_a_module_without_its_only_tensor_is_refused(tiny, tmp_path):
    source = Source(tiny, CONFIGS["ia3"], tmp_path / "plain")
    assert "lacks 1 of" in refused(
        write(tmp_path / "a", source.config, without(source, "layer.1.attention.self.value")), tiny
    )


def test_a_tensor_too_few_or_too_many_is_refused(lora, tmp_path):
    fewer = dict(list(lora.tensors.items())[1:])
    assert "lacks 1 of 12 tensors" in refused(write(tmp_path / "fewer", lora.config, fewer), lora.base)
    more = lora.tensors | {"base_model.model.bert.encoder.layer.0.extra.weight": torch.zeros(3)}
    assert "12 of 13 tensors match" in refused(write(tmp_path / "more", lora.config, more), lora.base)


def test_two_adapters_in_one_file_are_refused(lora, tmp_path):
    both = {}
    for name, tensor in lora.tensors.items():
        both[name.replace("lora_A.", "lora_A.one.")] = tensor
        both[name.replace("lora_A.", "lora_A.two.")] = tensor
    assert "does not fit" in refused(write(tmp_path / "a", lora.config, both), lora.base)


def test_an_adapter_cannot_change_the_base_of_the_others(engine, lora, expected, tmp_path):
    """PEFT loads any tensor of the model, and all adapters share the base's."""
    name = "bert.encoder.layer.0.output.dense.bias"
    original = load_file(lora.base.folder / "model.safetensors")[name]
    attack = lora.tensors | {f"base_model.model.{name}": original + 1}
    assert "12 of 13 tensors match" in refused(write(tmp_path / "attack", lora.config, attack), lora.base)
    copy = lora.tensors | {f"base_model.model.{name}": original}
    folder = write(tmp_path / "copy", lora.config, copy)
    assert "1 tensors are unchanged copies" in "".join(store.read(folder, lora.base).notes)
    assert same(answers(engine, folder), expected)


@pytest.mark.parametrize("merged_mb", [0, 100])
def test_trained_biases_are_the_adapters_own(tiny, lora, expected, tmp_path, merged_mb):
    source = Source(tiny, LoraConfig(r=4, bias="all", **TARGETS), tmp_path / "plain")
    one = Engine(tiny, merged_mb=merged_mb)
    plain = write(tmp_path / "other", lora.config, lora.tensors)
    one.add_folder(plain)
    one.add_folder(write(tmp_path / "biases", source.config, source.tensors))
    reference = peft_logits(one, tmp_path / "biases")
    assert torch.allclose(one.logits(TEXTS, "biases"), reference, atol=0.05 * reference.abs().max())
    assert same(one.logits(TEXTS, "other"), expected)
    if merged_mb:
        unmerged = one.logits(TEXTS, "biases")
        assert one.merge("biases")
        assert torch.allclose(one.logits(TEXTS, "biases"), unmerged, atol=0.02 * unmerged.abs().max())
    one.close()


def peft_logits(engine: Engine, folder) -> torch.Tensor:
    """Return the logits of PEFT itself on the engine's base, dequantised."""
    model = export._dequantised(loading.load_model(engine.base, kernel="sdpa", dtype=torch.float32))
    model = PeftModel.from_pretrained(model, folder).eval()
    return logits_of(model, engine)


def logits_of(model, engine: Engine) -> torch.Tensor:
    """Return the logits of a model for the ids that the engine reads."""
    with torch.inference_mode():
        ids = [torch.tensor([row.ids]) for row in tokens.encode(engine.tokenizer, TEXTS, 512)]
        return torch.cat([model(input_ids=row).logits for row in ids])


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_type_is_matched_under_other_names(engine, tiny, tmp_path, kind):
    source = Source(tiny, CONFIGS[kind], tmp_path / "plain")
    before = answers(engine, write(tmp_path / "before", source.config, source.tensors))
    prefixed = {f"module.{name}": tensor for name, tensor in source.tensors.items()}
    after = answers(engine, write(tmp_path / "after", source.config, prefixed))
    assert same(before, after)


def test_ranks_and_factors_by_layer_are_read(engine, tiny, tmp_path):
    config = LoraConfig(r=4, rank_pattern={"layer.0.attention.self.query": 2}, alpha_pattern={"value": 1}, **TARGETS)
    source = Source(tiny, config, tmp_path / "plain")
    folder = write(tmp_path / "a", source.config | {"fan_in_fan_out": True}, source.tensors)
    reference = peft_logits(engine, folder)
    assert torch.allclose(answers(engine, folder), reference, atol=0.05 * reference.abs().max())


def test_adalora_with_ranks_that_it_pruned_is_read(engine, tiny, tmp_path):
    model = get_peft_model(
        loading.load_model(tiny, "fp32"), AdaLoraConfig(init_r=6, target_r=4, total_step=10, **TARGETS)
    )
    kept = {}
    for name, _ in model.named_parameters():
        if name.endswith("lora_E.default"):
            kept[name.removeprefix("base_model.model.")] = [True, False, True, True, False, True]
    model.peft_config["default"].rank_pattern = kept
    model.peft_config["default"].base_model_name_or_path = tiny.id
    model.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    assert torch.isfinite(answers(engine, tmp_path / "a")).all()


def test_modules_that_the_config_names_by_the_encoders_paths_are_found_by_the_tensors(engine, lora, expected, tmp_path):
    config = with_config(lora, target_modules=r"encoder\.layer\.\d+\.attention\.self\.(query|value)")
    tensors = renamed(lora.tensors, ("model.bert.", "model."))
    assert same(answers(engine, write(tmp_path / "a", config, tensors)), expected)
    fewer = {name: tensor for name, tensor in tensors.items() if "layer.1.attention.self.value" not in name}
    assert "does not fit" in refused(write(tmp_path / "b", config, fewer), lora.base)


# ------------------------------------------------------------ heads


def test_a_head_without_a_task_type_is_served(engine, lora, expected, tmp_path):
    mapping = {"base_model_class": "BertForSequenceClassification", "parent_library": "os.system"}
    config = with_config(lora, task_type=None, auto_mapping=mapping)
    assert same(answers(engine, write(tmp_path / "a", config, lora.tensors)), expected)


def test_an_untrained_original_of_the_head_is_not_read(engine, lora, expected, tmp_path):
    names = [("model.classifier.", "model.classifier.modules_to_save.default.")]
    tensors = renamed(lora.tensors, *names) | {"base_model.model.classifier.original_module.weight": torch.ones(9, 64)}
    assert same(answers(engine, write(tmp_path / "a", lora.config, tensors)), expected)


def without(lora, part: str) -> dict:
    return {name: tensor for name, tensor in lora.tensors.items() if part not in name}


def test_heads_that_cannot_be_served_are_refused_when_they_are_read(lora, tmp_path):
    line = refused(write(tmp_path / "none", lora.config, without(lora, "classifier")), lora.base)
    assert "no trained classification head (classifier), so its answers would be random" in line
    line = refused(write(tmp_path / "nobias", lora.config, without(lora, "classifier.bias")), lora.base)
    assert "lacks 1 of" in line
    wide = {"base_model.model.classifier.weight": torch.zeros(2, 32)}
    line = refused(write(tmp_path / "wide", lora.config, lora.tensors | wide), lora.base)
    assert "has the shape 2x32, not 2x64" in line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_type": None, "auto_mapping": {"base_model_class": "BertForTokenClassification"}}, "trained as a"),
        ({"task_type": "TOKEN_CLS"}, "for task 'TOKEN_CLS'"),
        ({"init_lora_weights": "lora_ga"}, "changes the base's weights"),
        ({"peft_version": "99.0", "use_magic": True}, "use_magic, which PEFT"),
    ],
)
def test_adapters_of_other_kinds_are_refused(lora, tmp_path, values, message):
    assert message in refused(write(tmp_path / "a", with_config(lora, **values), lora.tensors), lora.base)


def test_a_part_of_the_head_that_nobody_trained_is_refused(base_of, tmp_path):
    """RoBERTa's head has two layers, and a file of the plain encoder has neither."""
    base = base_of("roberta")
    folder = shutil.copytree(base.folder, tmp_path / "encoder")
    encoder = {
        name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "classifier" not in name
    }
    write_weights(folder, "model.safetensors", encoder)
    plain = bases.find(str(folder))
    config = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["query"])
    source = Source(base, config, tmp_path / "plain")
    good = write(tmp_path / "good", source.config | {"base_model_name_or_path": plain.id}, source.tensors)
    assert store.read(good, plain).labels == ["LABEL_0", "LABEL_1"]
    assert "lacks 2 of" in refused(write(tmp_path / "bad", source.config, without(source, "classifier.dense")), base)
    scored = renamed(source.tensors, ("model.classifier.", "model.score."))
    assert store.read(write(tmp_path / "scored", source.config, scored), base).notes


# ------------------------------------------------------------ names of classes

LABELS = {
    "ids in any order": ("id2label: {1: good, 0: bad}", NAMES),
    "ids as text": ("id2label: {'1': good, '0': bad}", NAMES),
    "ids of names": ("label2id: {good: 1, bad: 0}", NAMES),
    "a list": ("labels: [bad, good]", NAMES),
    "YAML's booleans": ("labels: [no, yes]", ["no", "yes"]),
    "numbers": ("id2label: {1: 5, 0: 4.0}", ["4.0", "5"]),
    "LABEL_ keys": ("id2label: {LABEL_1: good, LABEL_0: bad}", NAMES),
    "features": (
        "dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '1': good\n          '0': bad",
        NAMES,
    ),
    "wrong count": ("labels: [bad, good, ugly]", ["LABEL_0", "LABEL_1"]),
    "from one": ("id2label: {1: bad, 2: good}", ["LABEL_0", "LABEL_1"]),
    "defaults": ("id2label: {0: LABEL_0, 1: LABEL_1}", ["LABEL_0", "LABEL_1"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_names_of_classes_on_cards_go_by_their_ids(lora, tmp_path, kind):
    card, names = LABELS[kind]
    adapter = store.read(write(tmp_path / "a", lora.config, lora.tensors, card=card), lora.base)
    assert adapter.labels == names
    assert bool(adapter.notes) == (kind in ("wrong count", "from one"))


def test_names_of_classes_next_to_the_adapter_come_before_the_cards(lora, tmp_path):
    beside = {"id2label": {"1": "good", "0": "bad"}}
    card = "id2label: {0: good, 1: bad}"
    adapter = store.read(write(tmp_path / "a", lora.config, lora.tensors, card=card, beside=beside), lora.base)
    assert adapter.labels == NAMES
    assert "but id2label of config.json bad, good, which is used" in "".join(adapter.notes)
    config = with_config(lora, id2label={"1": "pro", "0": "contra"})
    adapter = store.read(write(tmp_path / "b", config, lora.tensors, beside=beside), lora.base)
    assert adapter.labels == ["contra", "pro"]


def test_another_tools_results_are_left_alone(lora, tmp_path):
    folder = write(tmp_path / "a", lora.config, lora.tensors)
    (folder / "results.json").write_text('{"eval_accuracy": 0.9}')
    adapter = store.read(folder, lora.base)
    assert adapter.results is None
    assert "another tool's" in adapter.notes[0]


# ------------------------------------------------------------ base models


@pytest.mark.parametrize(
    ("name", "has_note"),
    [
        ("/home/bob/models/my-bert", True),
        ("C:\\models\\tiny-bert", True),
        ("./out/checkpoint-500", True),
        ("TINY-BERT", False),
        ("bob/tiny-bert", True),
        (None, True),
        ("", True),
    ],
)
def test_somebodys_name_of_the_base_is_accepted_if_all_shapes_fit(engine, lora, expected, tmp_path, name, has_note):
    folder = write(tmp_path / "a", with_config(lora, base_model_name_or_path=name), lora.tensors)
    notes = store.read(folder, lora.base).notes
    assert bool(notes) == has_note
    assert all("served on tiny-bert because every tensor's shape fits" in note for note in notes)
    assert same(answers(engine, folder), expected)


@pytest.mark.parametrize("name", ["gpt2", "bob/gpt2", "/home/bob/bert-base-uncased", "https://huggingface.co/bob/x"])
def test_the_name_of_another_model_is_refused_with_the_key_to_correct(lora, tmp_path, name):
    line = refused(write(tmp_path / "a", with_config(lora, base_model_name_or_path=name), lora.tensors), lora.base)
    assert "or correct base_model_name_or_path in adapter_config.json if it is a copy of tiny-bert" in line


def test_a_local_folder_is_compared_by_its_hash(lora, tmp_path):
    same = shutil.copytree(lora.base.folder, tmp_path / "same")
    other = shutil.copytree(lora.base.folder, tmp_path / "tiny-bert")
    tensors = load_file(other / "model.safetensors")
    write_weights(other, "model.safetensors", {name: tensor + 1 for name, tensor in tensors.items()})
    config = with_config(lora, base_model_name_or_path=str(same))
    assert not store.read(write(tmp_path / "a", config, lora.tensors), lora.base).notes
    config = with_config(lora, base_model_name_or_path=str(other))
    assert "is for base model" in refused(write(tmp_path / "b", config, lora.tensors), lora.base)


@pytest.mark.parametrize(
    "name",
    [
        "sentence-transformers/all-MiniLM-L6-v2",
        "Sentence-Transformers/all-minilm-l6-v2",
        "all-MiniLM-L6-v2",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/tree/main",
        "/root/.cache/huggingface/hub/models--sentence-transformers--all-MiniLM-L6-v2/snapshots/c9745ed1d9f2",
        "/data/all-MiniLM-L6-v2/",
    ],
)
def test_a_shipped_adapter_is_read_by_any_name_of_its_base(tmp_path, name):
    folder = shutil.copytree("adapters/minilm-imdb-ia3", tmp_path / "ia3")
    path = folder / store.ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))
    adapter = store.read(folder, bases.find("sentence-transformers/all-MiniLM-L6-v2"))
    assert adapter.labels == ["negative", "positive"]
    assert bool(adapter.notes) == name.startswith("/data")


# ------------------------------------------------------------ files

ENCODINGS = {
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16") if text.startswith("{") else text.encode(),
    "comments": lambda text: (
        text.replace("{", '{ // see "https://x"\n', 1) if text.startswith("{") else text
    ).encode(),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_texts_of_any_editor_are_read(engine, lora, expected, tmp_path, kind):
    card = "id2label: {1: good, 0: bad}"
    folder = write(tmp_path / "a", lora.config, lora.tensors, card=card, encode=ENCODINGS[kind])
    assert store.read(folder, lora.base).labels == NAMES
    assert same(answers(engine, folder), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_read(engine, lora, expected, tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in lora.tensors.items()}
    assert same(answers(engine, write(tmp_path / "a", lora.config, tensors)), expected)


def test_shards_are_read_and_a_missing_one_is_named(engine, lora, expected, tmp_path):
    folder = write(tmp_path / "a", lora.config, lora.tensors, shards=3)
    assert same(answers(engine, folder), expected)
    (folder / "adapter_model-00002-of-00003.safetensors").unlink()
    assert "names 1 of 3 shards that are missing (adapter_model-00002-of-00003.safetensors)" in refused(
        folder, lora.base
    )


def test_an_index_cannot_name_files_elsewhere(lora, tmp_path):
    folder = write(tmp_path / "a", lora.config, lora.tensors, shards=2)
    index = folder / "adapter_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../other.safetensors"}}))
    assert "names files outside of its folder" in refused(folder, lora.base)


@pytest.mark.parametrize("name", [store.ADAPTER_CONFIG, store.ADAPTER_WEIGHTS])
def test_pointers_and_empty_files_are_named(lora, tmp_path, name):
    folder = write(tmp_path / "a", lora.config, lora.tensors)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "is a Git LFS pointer" in refused(folder, lora.base)
    (folder / name).write_bytes(b"")
    assert "is empty (0 bytes)" in refused(folder, lora.base)


def test_values_that_are_no_numbers_are_refused_when_they_are_read(lora, tmp_path):
    for value in (float("nan"), float("inf")):
        first = next(iter(lora.tensors))
        broken = lora.tensors | {first: torch.full_like(lora.tensors[first], value)}
        line = refused(write(tmp_path / str(value), lora.config, broken), lora.base)
        assert f"has NaN or infinite values in {first}" in line
    integers = {name: tensor.to(torch.int8) for name, tensor in lora.tensors.items()}
    assert "of type I8" in refused(write(tmp_path / "integers", lora.config, integers), lora.base)


def test_unknown_fields_are_noted_and_empty_ones_are_not(engine, lora, expected, tmp_path):
    config = with_config(lora, enable_lora=None, merge_weights=False, my_own="x")
    folder = write(tmp_path / "a", config, lora.tensors)
    assert store.read(folder, lora.base).notes[0].startswith("ignores my_own, which PEFT")
    assert same(answers(engine, folder), expected)


def test_sub_folders_are_named_and_can_be_read(engine, lora, expected, tmp_path):
    for name in ("default", "checkpoint-12"):
        write(tmp_path / "run" / name, lora.config, lora.tensors)
    line = refused(tmp_path / "run", lora.base)
    assert "its sub-folders have: name one of them (checkpoint-12/, default/)" in line
    assert store.read(tmp_path / "run" / "default", lora.base).name == "run/default"
    assert same(answers(engine, tmp_path / "run" / "checkpoint-12"), expected)


def test_added_tokens_are_refused_with_their_number(lora, tmp_path):
    tokens = {"base_model.model.bert.embeddings.word_embeddings.weight": torch.zeros(603, 64)}
    line = refused(write(tmp_path / "a", lora.config, lora.tensors | tokens), lora.base)
    assert "has a vocabulary of 603 tokens, but tiny-bert has 600" in line


# ------------------------------------------------------------ complete models


@pytest.fixture(scope="module")
def trainer_model(tiny, tmp_path_factory):
    """A model as the Trainer saves it, and its answers."""
    folder = tmp_path_factory.mktemp("trainer") / "model"
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny.folder, id2label=dict(enumerate(NAMES)))
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.randn_like(parameter)).bfloat16().float()
    model.save_pretrained(folder)
    one = Engine(tiny, merged_mb=0)
    logits = answers(one, folder)
    one.close()
    reference = logits_of(model.eval(), one)
    assert torch.allclose(logits, reference, atol=0.05 * reference.abs().max())
    return folder, logits


@pytest.mark.parametrize("kind", ["plain", "parallel", "encoder alone", "score", "fp16", "bf16", "shards"])
def test_complete_models_of_the_trainer_are_served(engine, tiny, trainer_model, tmp_path, kind):
    source, logits = trainer_model
    tensors = load_file(source / "model.safetensors")
    if kind == "parallel":
        tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    elif kind == "encoder alone":
        tensors = renamed(tensors, ("bert.", ""))
    elif kind == "score":
        tensors = renamed(tensors, ("classifier.", "score."))
    elif kind in ("fp16", "bf16"):
        dtype = torch.float16 if kind == "fp16" else torch.bfloat16
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    folder = tmp_path / "full"
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    write_weights(folder, "model.safetensors", tensors, shards=2 if kind == "shards" else 1)
    assert store.read(folder, tiny).labels == NAMES
    assert torch.allclose(answers(engine, folder), logits, atol=2e-2 * logits.abs().max())


def test_a_head_of_one_output_answers_with_its_number(lora, engine, tmp_path):
    one = {"base_model.model.classifier.weight": torch.zeros(1, 64), "base_model.model.classifier.bias": torch.ones(1)}
    folder = write(tmp_path / "one", lora.config, lora.tensors | one)
    assert store.read(folder, lora.base).task == "regression"
    engine.add_folder(folder)
    assert engine.predict(["a text"], "one")[0].value == pytest.approx(1)


def test_the_problem_type_next_to_an_adapter_is_its_task(lora, engine, tmp_path):
    folder = write(tmp_path / "several", lora.config, lora.tensors)
    (folder / "config.json").write_text(json.dumps({"problem_type": "multi_label_classification"}))
    engine.add_folder(folder)
    answer = engine.predict(["a text"], "several")[0]
    expected = torch.sigmoid(engine.logits(["a text"], "several"))[0]
    assert list(answer.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert set(answer.labels) == {name for name, score in answer.scores.items() if score >= 0.5}


def test_the_problem_type_of_a_complete_model_is_its_task(tiny, trainer_model, tmp_path):
    folder = shutil.copytree(trainer_model[0], tmp_path / "full")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"problem_type": "multi_label_classification"}))
    assert store.read(folder, tiny).task == "multi-label"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_name_or_path": "bert-base-uncased"}, "is for base model bert-base-uncased"),
        ({"architectures": ["BertForMaskedLM"]}, "was trained as a 'BertForMaskedLM'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by another method"),
    ],
)
def test_complete_models_of_other_kinds_are_refused(tiny, trainer_model, tmp_path, change, message):
    folder = shutil.copytree(trainer_model[0], tmp_path / "full")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in refused(folder, tiny)


def test_a_complete_model_with_added_tokens_or_without_a_head_is_refused(tiny, trainer_model, tmp_path):
    folder = shutil.copytree(trainer_model[0], tmp_path / "full")
    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    write_weights(folder, "model.safetensors", tensors | {name: torch.zeros(605, 64)})
    assert "has a vocabulary of 605 tokens, but tiny-bert has 600" in refused(folder, tiny)
    encoder = {key: tensor for key, tensor in tensors.items() if "classifier" not in key}
    write_weights(folder, "model.safetensors", encoder)
    assert "no trained classification head" in refused(folder, tiny)


def test_an_export_is_read_back(engine, lora, tmp_path):
    folder = write(tmp_path / "a", lora.config, lora.tensors, card="labels: [bad, good]")
    before = answers(engine, folder)
    merged = export.write(store.read(folder, lora.base), lora.base, tmp_path / "merged")
    assert store.read(merged, lora.base).labels == NAMES
    assert torch.allclose(answers(engine, merged), before, atol=0.05 * before.abs().max())


# ------------------------------------------------------------ layouts drawn at random

OF_LAYERS = ["adapter's name", "another adapter's name", "wrapped head", "half-unwrapped head", "head called score"]
HARMLESS_NAMES = [[], *(pairs for kind, pairs in RENAMINGS.items() if kind not in OF_LAYERS)]
UNCERTAIN_NAMES = [pairs for pairs, _ in UNCERTAIN.values()]
"""The first choice of each list below is the plain layout; each choice has what it changes and whether it is served."""
CHOICES = {
    "names": [(pairs, True) for pairs in HARMLESS_NAMES] + [(pairs, False) for pairs in UNCERTAIN_NAMES],
    "names of layers": [([], True), *((RENAMINGS[kind], True) for kind in OF_LAYERS)],
    "head": [("kept", True), ("original too", True), ("missing", False), ("no bias", False)],
    "task": [
        ({}, True),
        ({"task_type": None}, True),
        ({"task_type": None, "auto_mapping": {"base_model_class": "BertForSequenceClassification"}}, True),
        ({"task_type": "FEATURE_EXTRACTION"}, True),
        ({"task_type": "CAUSAL_LM"}, False),
        ({"auto_mapping": {"base_model_class": "BertForTokenClassification"}}, False),
    ],
    "base": [
        ("tiny-bert", True),
        ("/mnt/models/tiny-bert", True),
        ("Tiny-BERT", True),
        ("../out", True),
        (None, True),
        ("roberta-base", False),
        ("bob/other", False),
    ],
    "dtype": [
        (torch.float32, True),
        (torch.float16, True),
        (torch.bfloat16, True),
        (torch.float64, True),
        (torch.int16, False),
    ],
    "shards": [(1, True), (2, True), (5, True)],
    "folder": [("adapter", True), ("run/default", True), ("run/checkpoint-12", True), ("run/best", True)],
    "text": [(lambda text: text.encode(), True)] + [(encode, True) for encode in ENCODINGS.values()],
    "damage": [
        ("none", True),
        ("NaN", False),
        ("a tensor missing", False),
        ("a tensor too many", False),
        ("another shape", False),
        ("pointer", False),
        ("truncated", False),
    ],
}
LABEL_SOURCES = ["none", "card", "card list", "label2id", "beside", "config", "two", "wrong count"]


def draw(rng: random.Random) -> tuple[dict, bool]:
    """Return a choice of each kind, and whether such an adapter is served."""
    chosen = {}
    is_served = True
    for kind, choices in CHOICES.items():
        served_choices = [choice for choice in choices if choice[1]]
        # One in eight choices of a kind that can be refused is, so that about half of the folders are served.
        value, is_good = rng.choice(choices if rng.random() < 0.25 else served_choices)
        chosen[kind] = value
        is_served &= is_good
    chosen["kind"] = rng.choice(list(CONFIGS))
    chosen["labels"] = rng.choice(LABEL_SOURCES)
    return chosen, is_served


def name_classes(source: str, config: dict) -> tuple[str | None, dict | None, list[str]]:
    """Return the card, the config.json next to the adapter and the names to expect; `config` may be changed."""
    right = {"1": "good", "0": "bad"}
    if source == "card":
        return "id2label: {1: good, 0: bad}", None, NAMES
    if source == "card list":
        return "labels:\n- bad\n- good", None, NAMES
    if source == "label2id":
        return "label2id: {good: 1, bad: 0}", None, NAMES
    if source == "beside":
        return None, {"model_type": "bert", "id2label": right}, NAMES
    if source == "config":
        config["id2label"] = right
        return None, None, NAMES
    if source == "two":
        return "labels: [good, bad]", {"label2id": {"good": 1, "bad": 0}}, NAMES
    if source == "wrong count":
        return "labels: [a, b, c]", None, ["LABEL_0", "LABEL_1"]
    return None, None, ["LABEL_0", "LABEL_1"]


def change_head(tensors: dict, choice: str) -> dict:
    heads = [name for name in tensors if "classifier" in name]
    if choice == "missing":
        return {name: tensor for name, tensor in tensors.items() if name not in heads}
    if choice == "no bias":
        return {name: tensor for name, tensor in tensors.items() if not name.endswith("classifier.bias")}
    if choice == "original too":
        weight = next(name for name in heads if name.endswith(".weight"))
        return tensors | {weight.replace(".weight", ".original_module.weight"): torch.ones(5, 64)}
    return tensors


def change_tensors(tensors: dict, choice: str, rng: random.Random) -> dict:
    one = rng.choice([name for name in tensors if "original_module" not in name])
    if choice == "NaN":
        return tensors | {one: torch.full_like(tensors[one], float("nan"))}
    if choice == "a tensor missing":
        return {name: tensor for name, tensor in tensors.items() if name != one}
    if choice == "a tensor too many":
        return tensors | {f"{one}.more": torch.ones(3)}
    if choice == "another shape":
        return tensors | {one: torch.ones(*tensors[one].shape, 1)}
    return tensors


def damage_files(folder, choice: str) -> None:
    weights = sorted(folder.glob("*.safetensors"))[-1]
    if choice == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif choice == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])


def test_layouts_drawn_at_random_are_served_with_the_same_answers_or_refused(engine, tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("random")
    sources = {}
    plain_answers = {}
    for kind, config in CONFIGS.items():
        sources[kind] = Source(tiny, config, place / f"source-{kind}")
        plain = write(place / f"plain-{kind}", sources[kind].config, sources[kind].tensors)
        plain_answers[kind] = answers(engine, plain)
    outcomes = Counter()
    for seed in range(EXAMPLES):
        rng = random.Random(seed)
        chosen, is_served = draw(rng)
        source = sources[chosen["kind"]]
        config = source.config | chosen["task"] | {"base_model_name_or_path": chosen["base"]}
        card, beside, names = name_classes(chosen["labels"], config)
        tensors = change_head(source.tensors, chosen["head"])
        tensors = change_tensors(tensors, chosen["damage"], rng)
        tensors = renamed(renamed(tensors, *chosen["names"]), *chosen["names of layers"])
        tensors = {name: tensor.to(chosen["dtype"]) for name, tensor in tensors.items()}
        folder = write(
            place / str(seed) / chosen["folder"], config, tensors, card, beside, chosen["text"], chosen["shards"]
        )
        damage_files(folder, chosen["damage"])
        problem = None
        try:
            adapter = store.read(folder, tiny)
        except AdapterError as error:
            problem = str(error)
        if problem:
            assert len(problem.splitlines()) == 1
            assert not is_served, (seed, chosen, problem)
            outcomes["refused"] += 1
            continue
        # What was drawn as uncertain may be certain for a type without such tensors: then its answers must be the same.
        assert same(answers(engine, folder), plain_answers[chosen["kind"]]), (seed, chosen)
        assert adapter.labels == names, (seed, chosen)
        outcomes["served" if is_served else "served, though drawn as uncertain"] += 1
        shutil.rmtree(place / str(seed))
    print(dict(outcomes))
    assert outcomes["served"] > EXAMPLES / 5
    assert outcomes["refused"] > EXAMPLES / 5
