"""Tiny random bases of any model type for which transformers has a text classifier."""

import json
from pathlib import Path

import torch
from conftest import tokenizer
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PretrainedConfig

from adapter_arena.models import bases, inspect

VOCABULARY = 600
_WIDTH = 32
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": _WIDTH, "d_model": _WIDTH, "dim": _WIDTH, "n_embd": _WIDTH, "emb_dim": _WIDTH,
    "embedding_size": _WIDTH, "pooler_hidden_size": _WIDTH, "input_embedding_size": _WIDTH,
    "word_embed_proj_dim": _WIDTH, "output_embedding_size": _WIDTH,
    "intermediate_size": 64, "ffn_dim": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_ff": 64, "hidden_dim": 64,
    "ffn_hidden_size": 64, "d_inner": 64, "dff": 64, "n_inner": 64,
    "num_hidden_layers": 2, "num_layers": 2, "n_layers": 2, "n_layer": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 2, "n_heads": 2, "n_head": 2, "num_heads": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "num_key_value_heads": 1, "num_kv_heads": 1,
    "head_dim": 16, "d_kv": 16, "d_head": 16, "kv_channels": 16, "query_pre_attn_scalar": 16,
    "max_position_embeddings": 130, "n_positions": 130, "max_seq_len": 130, "n_ctx": 130,
    "pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    "decoder_start_token_id": 2, "forced_eos_token_id": 3,
    "type_vocab_size": 2,
}  # fmt: skip
_MORE = {
    "deberta-v2": {"relative_attention": True, "position_buckets": 32, "pos_att_type": ["p2c", "c2p"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "diffllama": {"num_key_value_heads": 2},
    "esmc": {"num_key_value_heads": 2},
    "esm": {"position_embedding_type": "rotary"},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "roc_bert": {"pronunciation_vocab_size": 50, "shape_vocab_size": 50},
    "t5": {"decoder_start_token_id": 0},
    "gptj": {"rotary_dim": 8},
    "minicpm3": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
    },
    "longformer": {"attention_window": [8, 8]},
}
"""Config values that some types need at this size."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return a config of two layers and 32 channels."""
    config_class = CONFIG_MAPPING[model_type]
    default = config_class()
    names = set(default.to_dict()) | set(getattr(default, "attribute_map", {}))
    sizes = {name: size for name, size in _SIZES.items() if name in names}
    return config_class(**(sizes | _MORE.get(model_type, {})))


def tiny_base(folder: Path, model_type: str) -> bases.Base:
    """Save a random base of a model type in `folder`, with a tokenizer of 600 words, and return it."""
    config = tiny_config(model_type)
    inspect.load_config(model_type, config.to_json_string(use_diff=False))  # before it is built
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return bases.find(str(folder))


def shard(folder: Path, keep_all: bool = True) -> None:
    """Split a model's weights into two files in 16 bits, with an index; without `keep_all` the second is missing."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    names = sorted(tensors)
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        weight_map.update(dict.fromkeys(part, file))
        if keep_all or i == 0:
            save_file({name: tensors[name].half() for name in part}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
