"""Adapters with random weights made by PEFT alone, one for each PEFT type, as other people publish them."""

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, OFTConfig, PromptTuningConfig, VeraConfig, get_peft_model

from adapter_arena.models import loading

TARGETS = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"], "modules_to_save": ["pooler", "classifier"]}
CONFIGS = {
    "lora": LoraConfig(r=4, **TARGETS),
    "dora": LoraConfig(r=4, use_dora=True, **TARGETS),
    "ia3": IA3Config(feedforward_modules=[], **TARGETS),
    "adalora": AdaLoraConfig(init_r=6, target_r=4, total_step=10, **TARGETS),
    "vera": VeraConfig(r=8, **TARGETS),
    "oft": OFTConfig(oft_block_size=4, **TARGETS),
    "prompt": PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4),
}


def plain_adapter(base, config, folder, labels=2):
    """Write an adapter with random weights for the base to `folder`, and return the folder."""
    torch.manual_seed(len(folder.name))
    model = get_peft_model(loading.load_model(base, "fp32", labels), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.peft_config["default"].base_model_name_or_path = base.id
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder
