"""Tokenizers and tiny bases of three families that put a pair of texts together in different ways."""

from pathlib import Path

import torch
from conftest import make_base, tokenizer
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from adapter_arena.models import bases

TEMPLATES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    "llama": ("[CLS] $A", "[CLS] $A [CLS]:1 $B:1"),
}
"""Templates for one text and for a pair, with [CLS] and [SEP] in the place of <s> and </s>."""
_LLAMA = LlamaConfig(
    vocab_size=600,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=512,
    pad_token_id=0,
    bos_token_id=2,
    eos_token_id=3,
)
PAIR = ("The acting is superb .", "the film is awful")


def pair_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Return the tests' tokenizer with the template of a family; only BERT's model reads token types."""
    words = tokenizer()
    ids = [(token, words.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    single, pair = TEMPLATES[family]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    names = ["input_ids", "token_type_ids", "attention_mask"] if family == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=words.backend_tokenizer, model_input_names=names, **words.special_tokens_map
    )


def pair_base(folder: Path, family: str) -> bases.Base:
    """Save a random base of a family in `folder`, and return it."""
    if family == "llama":
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(_LLAMA).save_pretrained(folder)
    else:
        make_base(folder, family)
        config = AutoConfig.from_pretrained(folder)
        config.pad_token_id = 0  # RoBERTa's default is that of [UNK] in the tests' vocabulary
        config.save_pretrained(folder)
    pair_tokenizer(family).save_pretrained(folder)
    return bases.find(str(folder))
