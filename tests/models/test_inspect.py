"""Any base model by Hub id or folder: what its config decides, and what is refused before anything is downloaded."""

import json
import re
import shutil

import huggingface_hub
import pytest
import torch
from conftest import make_base
from hub_server import Fault
from peft import PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_types import shard, tiny_base

import train_space
from adapter_arena import machine
from adapter_arena.errors import BaseModelError
from adapter_arena.models import bases, loading, memory, weights
from adapter_arena.recipe import DEFAULT_BASE
from adapter_arena.serve.engine import Engine
from adapter_arena.train import recipes, run, trainable

TABLE = {
    "bert-base-uncased": {
        "attention": ["query", "value"],
        "all_linear": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        "ia3": ["key", "value", "output.dense"],
        "ia3_feedforward": ["output.dense"],
        "norms": ["LayerNorm"],
        "head": ("pooler", "classifier"),
        "logits": "classifier",
    },
    "distilbert-base-uncased": {
        "attention": ["q_lin", "v_lin"],
        "all_linear": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
        "ia3": ["k_lin", "v_lin", "lin2"],
        "ia3_feedforward": ["lin2"],
        "norms": ["LayerNorm", "sa_layer_norm", "output_layer_norm"],
        "head": ("pre_classifier", "classifier"),
        "logits": "classifier",
    },
    "FacebookAI/roberta-base": {
        "attention": ["query", "value"],
        "all_linear": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        "ia3": ["key", "value", "output.dense"],
        "ia3_feedforward": ["output.dense"],
        "norms": ["LayerNorm"],
        "head": ("classifier",),
        "logits": "classifier.out_proj",
    },
    "microsoft/deberta-v3-base": {
        "attention": ["query_proj", "value_proj"],
        "all_linear": ["query_proj", "key_proj", "value_proj", "output.dense", "intermediate.dense"],
        "ia3": ["key_proj", "value_proj", "output.dense"],
        "ia3_feedforward": ["output.dense"],
        "norms": ["LayerNorm"],
        "head": ("pooler", "classifier"),
        "logits": "classifier",
    },
    "answerdotai/ModernBERT-base": {
        "attention": ["Wqkv"],
        "all_linear": ["Wqkv", "Wo", "Wi"],
        "ia3": ["Wqkv", "mlp.Wo"],
        "ia3_feedforward": ["mlp.Wo"],
        "norms": ["norm", "attn_norm", "mlp_norm", "final_norm"],
        "head": ("head", "classifier"),
        "logits": "classifier",
    },
}
"""What was written down by hand for each architecture before it was derived."""


def modules_of(model, head: str, names) -> set[str]:
    """Return the modules outside the head with parameters that PEFT finds by these names."""
    found = set()
    for name, module in model.named_modules():
        is_named = any(f".{name}".endswith(f".{suffix}") for suffix in names)
        if is_named and not head.fullmatch(name) and next(module.parameters(recurse=False), None) is not None:
            found.add(name)
    return found


@pytest.mark.parametrize("base_id", TABLE)
def test_inspection_gives_what_the_table_gave(base_id):
    base = bases.find(base_id)
    found = base.architecture
    model = loading.meta_model(base)
    head = re.compile(found.outside_encoder)
    for group, names in TABLE[base_id].items():
        if group in ("head", "logits"):
            assert getattr(found, group) == names
        else:
            assert modules_of(model, head, getattr(found, group)) == modules_of(model, head, names)
    assert found.autocast == (base_id != "microsoft/deberta-v3-base")
    assert not found.pools_last_token


@pytest.mark.parametrize(
    ("method", "rank", "trainable_parameters"),
    [("lora", 16, 1_181_954), ("qlora", 8, 887_042), ("ia3", 8, 656_642)],
)
def test_counts_on_roberta_base_are_the_published_ones(method, rank, trainable_parameters):
    recipe, _ = recipes.resolve(method, base_model="FacebookAI/roberta-base", rank=rank)
    assert trainable.count_parameters(recipe)[0] == trainable_parameters


def test_memory_of_the_default_base_is_told_from_its_config():
    base = bases.find(DEFAULT_BASE)
    found = memory.estimate(base.full_config, base.architecture)
    model = loading.load_model(base)
    nbytes = sum(parameter.nbytes for parameter in model.parameters())
    assert found.parameters == 22_713_986
    assert found.megabytes == pytest.approx(nbytes / 1e6, rel=0.02)


def test_dry_run_tells_parameters_and_memory_of_any_base_from_its_config(tmp_path, capsys):
    """The weights are not read: there are none. A base of over 300 M parameters is trained with QLoRA by default."""
    config = {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert train_space.main(["--base-model", str(tmp_path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"method +qlora", line) for line in lines)
    assert lines[-2].startswith("trainable parameters 1,148,928 of 597,")
    step = r"base model 539 MB as --method qlora trains it, and up to ([\d,]+) MB for a batch"
    # 28 layers, 16 texts of 256 tokens, 34 bytes for each of 1,024 channels and 5 for each pair of tokens and head
    activations = 28 * 16 * 256 * (34 * 1024 + 5 * 16 * 256) / 1e6
    assert float(re.fullmatch(step, lines[-1])[1].replace(",", "")) in (round(activations), round(2 * activations))


def test_a_local_base_that_does_not_fit_the_machine_is_refused_before_training(llama, work, monkeypatch, capsys):
    fields = {"base_model": llama.id, "dataset": "sample", "n_train": 64, "n_test": 40, "name": "x"}
    recipe, _ = recipes.resolve("lora", **fields)
    needed = trainable.estimate_memory(recipe)
    monkeypatch.setattr(machine, "total_memory_mb", lambda: needed.base.megabytes + needed.step_mb - 0.1)
    trainable.check_memory(recipe)
    assert "lower batch_size or max_length" in capsys.readouterr().out
    monkeypatch.setattr(machine, "total_memory_mb", lambda: needed.base.megabytes - 0.1)
    with pytest.raises(BaseModelError, match="use a smaller one"):
        run.train(recipe)
    assert not list(work.iterdir())


# ------------------------------------------------------------ decoders


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> bases.Base:
    return tiny_base(tmp_path_factory.mktemp("llama") / "base", "llama")


def without_pad_token(base: bases.Base, folder) -> bases.Base:
    """Copy a base; the copy has no padding token, and ends texts with `[SEP]`, as many chat models do."""
    shutil.copytree(base.folder, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("pad_token")
    path.write_text(json.dumps(settings | {"eos_token": "[SEP]"}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    return bases.find(str(folder))


def test_a_decoder_without_padding_token_answers_alike_alone_and_in_a_batch(llama, tmp_path):
    base = without_pad_token(llama, tmp_path / "base")
    engine = Engine(base)
    assert engine.tokenizer.pad_token == "[SEP]"
    engine.add_untrained("x", ["a", "b"], 0, 64)
    texts = ["the film [SEP] is awful [SEP]", "the acting is superb . " * 4, "[SEP]", "?"]
    together = engine.logits(texts, "x")
    alone = torch.cat([engine.logits([text], "x") for text in texts])
    engine.close()
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    torch.testing.assert_close(together, alone, atol=0.01, rtol=0)


@pytest.mark.parametrize("config_class", [PromptEncoderConfig, PrefixTuningConfig])
def test_virtual_tokens_of_strangers_answer_alike_alone_and_in_a_batch(llama, tmp_path, config_class):
    sizes = {"num_virtual_tokens": 4, "num_layers": 2, "token_dim": 32, "num_attention_heads": 2}
    config = config_class(task_type="SEQ_CLS", num_transformer_submodules=1, encoder_hidden_size=8, **sizes)
    torch.manual_seed(0)
    model = get_peft_model(loading.load_model(llama), config)
    model.peft_config["default"].base_model_name_or_path = llama.label
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    engine = Engine(llama)
    name = engine.add_folder(tmp_path / "adapter").name
    texts = ["the film is awful", "the acting is superb . " * 4, "?"]
    together = engine.logits(texts, name)
    alone = torch.cat([engine.logits([text], name) for text in texts])
    engine.close()
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    torch.testing.assert_close(together, alone, atol=0.01, rtol=0)


def test_a_score_head_has_no_bias_and_no_cache(llama):
    model = loading.load_model(llama, num_labels=3)
    assert model.score.bias is None
    assert model.score.out_features == 3
    assert not model.config.use_cache


def test_a_long_window_is_bounded_by_the_setting_and_the_positions(llama, monkeypatch):
    windows = {}
    for limit in ("64", "5000"):
        monkeypatch.setenv("ARENA_MAX_WINDOW", limit)
        engine = Engine(llama)
        engine.add_untrained("x", ["a", "b"], 0, 8000)
        windows[limit] = engine.get("x").max_length
        engine.close()
    assert windows == {"64": 64, "5000": 130}


@pytest.mark.parametrize("model_type", ["camembert", "mpnet", "xlm-roberta", "opt", "gpt2"])
def test_the_longest_text_fits_the_positions(tmp_path, model_type):
    base = tiny_base(tmp_path / "base", model_type)
    model = loading.load_model(base)
    limit = loading.position_limit(model)
    ids = torch.randint(5, 600, (1, limit + 1))
    with torch.inference_mode():
        model(input_ids=ids[:, :limit])
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=ids)


# ------------------------------------------------------------ files


def test_sharded_weights_in_16_bits_load_and_have_a_hash_of_their_own(llama, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(llama.folder, folder)
    shard(folder)
    base = bases.find(str(folder))
    torch.manual_seed(0)
    sharded = loading.load_model(base)
    torch.manual_seed(0)
    single = loading.load_model(llama)
    ids = torch.randint(5, 600, (2, 9))
    with torch.inference_mode():
        torch.testing.assert_close(sharded(ids).logits, single(ids).logits, atol=0.01, rtol=0)
    assert weights.sha256(folder) != weights.sha256(llama.folder)


def test_a_missing_shard_is_named(llama, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(llama.folder, folder)
    shard(folder, keep_all=False)
    with pytest.raises(BaseModelError, match=r"has no model-00002-of-00002.safetensors, which its .* names"):
        bases.locate(bases.find(str(folder)))


def test_weights_that_lack_a_layer_are_refused(llama, tmp_path):
    folder = tmp_path / "incomplete"
    shutil.copytree(llama.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match="no weights for 1 parameters of a llama"):
        loading.load_model(bases.find(str(folder)))


def test_a_copy_of_a_known_base_is_that_base(tmp_path):
    shutil.copytree(bases.locate(bases.find(DEFAULT_BASE)), tmp_path / "copy")
    base = bases.find(str(tmp_path / "copy"))
    assert base.label == DEFAULT_BASE
    assert bases.locate(base) == tmp_path / "copy"
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"x")
    assert bases.find(str(tmp_path / "copy")).label == "copy"


CONFIG = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
BAD_FOLDERS = {
    "adapter": ({"adapter_config.json": "{}"}, "is an adapter and not a base model"),
    "gguf": ({"model.Q4_K_M.gguf": "x"}, "is a GGUF file for llama.cpp"),
    "empty": ({"README.md": "x"}, "has no config.json"),
    "bin": ({"config.json": CONFIG, "pytorch_model.bin": "x"}, "has only pickled weights"),
    "no weights": ({"config.json": CONFIG}, "has no model.safetensors"),
    "remote code": ({"config.json": {"model_type": "mine", "auto_map": {}}}, "needs code from its repo"),
    "no type": ({"config.json": {}}, "has no model_type"),
    "no classifier": ({"config.json": {"model_type": "mamba"}}, "no text classifier in transformers .* kinds"),
    "vision": ({"config.json": {"model_type": "gemma3", "vision_config": {}}}, "reads images or sound"),
    "image": ({"config.json": {"model_type": "vit"}}, "no text classifier in transformers"),
    "quantised": ({"config.json": CONFIG | {"quantization_config": {"quant_method": "awq"}}}, "already quantised"),
    "layers": ({"config.json": CONFIG | {"num_hidden_layers": 10**9}}, "num_hidden_layers 1,000,000,000"),
    "width": ({"config.json": CONFIG | {"hidden_size": 10**15}}, "hidden_size 1,000,000,000,000,000"),
    "list": ({"config.json": CONFIG | {"layer_types": ["x"] * 200_000}}, "200,000 entries in layer_types"),
    "negative": ({"config.json": CONFIG | {"hidden_size": -4}}, "cannot be built from its config.json"),
    "text": ({"config.json": CONFIG | {"hidden_size": "wide"}}, "cannot be built from its config.json"),
    "truncated": ({"config.json": '{"model_type": "ll'}, "config.json is not JSON"),
    "array": ({"config.json": "[1]"}, "config.json is not a JSON object"),
    "experts": ({"config.json": {"model_type": "mixtral", "num_hidden_layers": 2}}, "a mixture of experts"),
}
"""Files of a folder that is not a supported base model, besides its weights, and what is said about it."""


def content_of(files: dict) -> dict[str, bytes]:
    content = {name: value if isinstance(value, str) else json.dumps(value) for name, value in files.items()}
    is_refused_by_config = "config.json" in files and len(files) == 1 and files["config.json"] is not CONFIG
    if is_refused_by_config:
        content["model.safetensors"] = "x"
    return {name: text.encode() for name, text in content.items()}


@pytest.mark.parametrize(("files", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_folder_that_is_not_a_base_is_refused_in_one_line(tmp_path, files, message):
    for name, content in content_of(files).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BaseModelError, match=message) as error:
        bases.find(str(tmp_path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


# ------------------------------------------------------------ the Hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hub cache."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(folder), raising=False)
    return folder


def add_base(hub_server, repo_id: str, folder, **options) -> str:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return hub_server.add_repo(repo_id, files, **options)


def test_a_sharded_base_is_found_and_downloaded_by_id(llama, tmp_path, hub_server, cache):
    folder = tmp_path / "sharded"
    shutil.copytree(llama.folder, folder)
    shard(folder)
    sha = add_base(hub_server, "bob/sharded-llama", folder, private=False)
    base = bases.find("bob/sharded-llama")
    assert base.revision == sha
    assert base.label == "bob/sharded-llama"
    assert base.architecture == llama.architecture
    assert not list(cache.glob("**/*.safetensors"))
    located = bases.locate(base)
    assert weights.sha256(located) == weights.sha256(folder)
    assert loading.load_tokenizer(base).padding_side == "right"
    requests = len(hub_server.requests)
    assert bases.find("bob/sharded-llama").revision == sha
    assert bases.locate(bases.find("bob/sharded-llama")) == located
    assert len(hub_server.requests) == requests


@pytest.mark.parametrize(("files", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_repo_that_is_not_a_base_is_refused_and_leaves_nothing(hub_server, cache, files, message):
    hub_server.add_repo("bob/bad", content_of(files))
    with pytest.raises(BaseModelError, match=message):
        bases.find("bob/bad")
    assert not cache.exists() or not [path for path in cache.rglob("*") if path.is_file()]


def test_missing_private_and_gated_bases_need_an_id_or_a_token(llama, hub_server, cache, monkeypatch):
    with pytest.raises(BaseModelError, match="is not on the Hub, or is private: check the id, or set HF_TOKEN"):
        bases.find("bob/nothing")
    add_base(hub_server, "alice/private", llama.folder, private=True)
    add_base(hub_server, "alice/gated", llama.folder)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BaseModelError, match="is not on the Hub, or is private"):
        bases.find("alice/private")
    hub_server.fail("GET /api/models/alice/gated", Fault(403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(BaseModelError, match=r"is gated: accept its terms at .*alice/gated and set HF_TOKEN"):
        bases.find("alice/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    assert bases.find("alice/private").model_type == "llama"


def test_a_base_larger_than_the_machine_is_refused_before_the_download(llama, hub_server, cache, monkeypatch):
    add_base(hub_server, "bob/large", llama.folder)
    monkeypatch.setattr(machine, "total_memory_mb", lambda: 0.01)
    with pytest.raises(BaseModelError, match=r"takes 0 MB \([\d,]+ parameters, nf4\), and this machine has 0 MB"):
        bases.locate(bases.find("bob/large"))
    assert not list(cache.glob("**/*.safetensors"))


def test_a_damaged_download_is_deleted(llama, hub_server, cache):
    add_base(hub_server, "bob/damaged", llama.folder)
    base = bases.find("bob/damaged")
    hub_server.fail("GET .*resolve/.*/model.safetensors", Fault(flip=True))
    with pytest.raises(BaseModelError, match=r"model.safetensors was damaged in transfer and is deleted; try again"):
        bases.locate(base)
    assert weights.sha256(bases.locate(base)) == weights.sha256(llama.folder)


def test_a_dense_layer_of_sentence_transformers_is_reported(tmp_path, capsys):
    make_base(tmp_path / "base", "bert")
    (tmp_path / "base" / "2_Dense").mkdir()
    bases.find(str(tmp_path / "base"))
    assert "its Dense layer after the pooling is not used" in capsys.readouterr().err
