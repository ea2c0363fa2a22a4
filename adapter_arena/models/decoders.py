"""Classifiers on decoders: padding, pooling and the KV cache."""

from types import MethodType

import torch
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from adapter_arena.models.architecture import Architecture
from adapter_arena.models.fast import causal


def prepare(model: PreTrainedModel, architecture: Architecture, pad_token_id: int) -> None:
    """Make a decoder a classifier of padded batches, also of embeddings as prompt tuning sends them.

    The head reads the last token that is not padding, which transformers finds by `pad_token_id`: a padding token
    within a text changes nothing.
    """
    config = model.config.get_text_config()
    config.pad_token_id = pad_token_id
    config.use_cache = False
    model.head_names = architecture.head
    model.forward = MethodType(_forward, model)


def _forward(
    model: PreTrainedModel,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    past_key_values: Cache | None = None,
    inputs_embeds: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    lengths: list[int] | None = None,
    **options,
) -> SequenceClassifierOutputWithPast:
    """Compute what the model's class does; for `inputs_embeds` pool each row's last token by the attention mask.

    Of embeddings, transformers pools the last position, which is padding in all rows but the longest. PEFT passes a
    prefix only if there is a parameter for it, `past_key_values`.
    """
    classifier = type(model).forward
    if past_key_values is not None:
        options["past_key_values"] = past_key_values
    if lengths is not None:
        states = model.base_model(input_ids, attention_mask=attention_mask, lengths=lengths, **options)[0]
        return SequenceClassifierOutputWithPast(logits=_head(model, causal.last_tokens(states, lengths)))
    if inputs_embeds is None or attention_mask is None:
        return classifier(
            model, input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, labels=labels, **options
        )
    states = model.base_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)[0]
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = (positions * attention_mask.long()).argmax(1)
    logits = _head(model, states[torch.arange(len(states), device=states.device), last])
    loss = None
    if labels is not None:
        loss = model.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=model.config)
    return SequenceClassifierOutputWithPast(loss=loss, logits=logits)


def _head(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    for name in model.head_names:
        states = getattr(model, name)(states)
    return states
