"""Classifiers on decoders: padding, pooling and the KV cache."""

from types import MethodType

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from adapter_arena.models.architecture import Architecture


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
    inputs_embeds: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    **options,
) -> SequenceClassifierOutputWithPast:
    """Compute what the model's class does; for `inputs_embeds` pool each row's last token by the attention mask.

    Of embeddings, transformers pools the last position, which is padding in all rows but the longest.
    """
    classifier = type(model).forward
    if inputs_embeds is None or attention_mask is None:
        return classifier(
            model, input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, labels=labels, **options
        )
    states = model.base_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)[0]
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = (positions * attention_mask.long()).argmax(1)
    logits = states[torch.arange(len(states), device=states.device), last]
    for name in model.head_names:
        logits = getattr(model, name)(logits)
    loss = None
    if labels is not None:
        loss = model.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=model.config)
    return SequenceClassifierOutputWithPast(loss=loss, logits=logits)
