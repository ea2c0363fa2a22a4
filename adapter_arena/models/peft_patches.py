"""Changes to PEFT's layers and configs that make training and serving faster, or possible for more architectures."""

from types import MethodType

import torch
from peft import PeftConfig, PeftModel, PromptTuningConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.dora import DoraLinearLayer
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from transformers import PreTrainedModel


def set_prompt_sizes(config: PeftConfig, model: PreTrainedModel) -> PeftConfig:
    """Copy the base's sizes into a prompt tuning config, and return the config; others are returned unchanged.

    PEFT reads the sizes itself, but only from configs of some architectures, and it takes the width of the layers for
    that of the embeddings.
    """
    if isinstance(config, PromptTuningConfig):
        base_config = model.config.get_text_config()
        config.token_dim = model.get_input_embeddings().embedding_dim
        config.num_layers = base_config.num_hidden_layers
        config.num_attention_heads = getattr(base_config, "num_attention_heads", 1)  # prompt tuning does not use it
        config.num_transformer_submodules = 1
    return config


def skip_input_casts(model: PeftModel) -> PeftModel:
    """Stop LoRA layers from casting their input to fp32, for models run under bf16 autocast; return the model.

    Autocast casts the input back to bf16 before the first matrix product, so the results have the same bits;
    a training step is 12 % shorter. DoRA computes its norms in the input's type, so its layers keep the cast.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer) and not any(module.use_dora.values()):
            module.cast_input_dtype_enabled = False
    return model


def cache_dora_norms(model: PeftModel) -> PeftModel:
    """Make DoRA layers compute the norm of their weights once instead of in each pass; return the model.

    For serving only: the norm changes while an adapter is trained. PEFT's own cache also stores the product of
    B and A, which takes many times the adapter's own memory.
    """
    for module in model.modules():
        # DoRA layers of embeddings are of a subclass whose `forward` has other parameters.
        if type(module) is DoraLinearLayer:
            module.forward = MethodType(_dora_forward, module)
    return model


def clear_dora_norms(model: nn.Module) -> nn.Module:
    """Remove the cached norms after the base layers were replaced; return the model."""
    for module in model.modules():
        if isinstance(module, DoraLinearLayer):
            vars(module).pop("cached_scale", None)
    return model


def _dora_forward(
    layer: DoraLinearLayer, x: torch.Tensor, *, lora_A, lora_B, scaling, base_layer, base_result, adapter_name
) -> torch.Tensor:
    """Return what DoRA adds to the base layer's result, as `DoraLinearLayer.forward` but with cached norms."""
    scale = getattr(layer, "cached_scale", None)
    if scale is None:
        # A tensor made in inference mode cannot be used where gradients are needed, as in an explanation.
        with torch.inference_mode(False), torch.no_grad():
            weight = dequantize_module_weight(base_layer).to(x.dtype)
            update = layer.get_lora_weight(lora_A, lora_B).to(x.dtype)
            norm = layer.get_weight_norm(weight, update, scaling)
            scale = (layer.weight / norm).view(1, -1)
        layer.cached_scale = scale
    without_bias = base_result if base_layer.bias is None else base_result - base_layer.bias
    return (scale - 1) * without_bias + scale * lora_B(lora_A(x)) * scaling
