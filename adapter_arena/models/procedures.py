"""What some methods do in addition to their PEFT config: before, during and after training."""

from pathlib import Path

import torch
from peft import PeftModel, initialize_lora_eva_weights
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from adapter_arena.models import compute
from adapter_arena.models.fast import attention

_NAME = "default"
"""Name of the only adapter of a model in training, as `get_peft_model` sets it."""


class AdaLoraCallback(TrainerCallback):
    """Mask the least important ranks of an AdaLoRA adapter after each step, down to its rank budget.

    The first and the last masking are at the same shares of the steps as in the paper's run on SST-2: 6,000 and
    22,000 of 50,500 (Zhang et al. 2023, arXiv:2303.10512, appendix). The state is part of each checkpoint, so
    that a resumed run masks the same ranks.
    """

    FILE = "adalora.pt"

    def __init__(self, model: PeftModel, checkpoint: str | None):
        self._model = model.base_model
        self._checkpoint = checkpoint
        self._config = model.peft_config[_NAME]
        self._allocator = model.base_model.rankallocator
        self._pattern: dict | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Set the schedule of the run and, in a resumed run, load the state of the checkpoint."""
        self._config.total_step = state.max_steps
        self._config.tinit = int(0.12 * state.max_steps)
        self._config.tfinal = int(0.44 * state.max_steps)
        if self._checkpoint:
            saved = torch.load(Path(self._checkpoint) / self.FILE, weights_only=True, map_location=args.device)
            self._pattern = saved["pattern"]
            self._allocator.exp_avg_ipt = saved["importance"]
            self._allocator.exp_avg_unc = saved["uncertainty"]
            self._allocator.ipt = dict.fromkeys(saved["importance"])

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Update the importance of the ranks and mask those over the budget."""
        if self._config.total_step - self._config.tfinal < 2:
            return  # too few steps to learn the importance of any rank
        self._config.rank_pattern = self._pattern
        self._model.update_and_allocate(state.global_step + 1)
        self._pattern = self._config.rank_pattern
        # With a pattern PEFT saves only the remaining ranks, and such a checkpoint does not fit the model that resumes.
        self._config.rank_pattern = None

    def on_save(self, args, state, control, **kwargs):
        """Write the state into the checkpoint."""
        content = {
            "pattern": self._pattern,
            "importance": self._allocator.exp_avg_ipt,
            "uncertainty": self._allocator.exp_avg_unc,
        }
        torch.save(content, Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.FILE)

    def on_train_end(self, args, state, control, **kwargs):
        """Set the final pattern, so that the saved adapter has only the remaining ranks."""
        self._config.rank_pattern = self._pattern


def initialise_eva(model: PeftModel, batches: list[dict[str, torch.Tensor]]) -> None:
    """Initialise LoRA's A with the principal directions of each layer's inputs (EVA, arXiv:2410.07170).

    `batches` have input_ids and attention_mask of training rows; they are repeated until the directions converge.
    """

    def forward(model: PeftModel, batch: dict[str, torch.Tensor]) -> None:
        with compute.autocast(model):
            model(**batch)

    with attention.every_token(model):
        initialize_lora_eva_weights(
            model, batches, forward_fn=forward, prepare_layer_inputs_fn=_token_inputs, show_progress_bar=False
        )


def _token_inputs(layer_input, positions: torch.Tensor, layer_name: str) -> torch.Tensor:
    """Return the layer's inputs at `positions` (n, 2), without padding, of shape (n, features), in fp32."""
    inputs = layer_input if isinstance(layer_input, torch.Tensor) else layer_input[0]
    # DeBERTa also projects the relative positions, of shape (1, n, features).
    if positions[:, 0].max() >= len(inputs):
        return inputs.flatten(0, -2).float()
    return inputs[positions.T.unbind()].float()


def save_pissa_start(model: PeftModel) -> None:
    """Store the initial A and B of each PiSSA layer, for `pissa_to_lora`; call it before any training."""
    for module in _lora_layers(model):
        down = module.lora_A[_NAME].weight.detach().clone()
        up = module.lora_B[_NAME].weight.detach().clone()
        module.pissa_start = (down, up)


def pissa_to_lora(model: PeftModel) -> None:
    """Convert a trained PiSSA adapter, in place, to LoRA of twice the rank that fits the base's original weights.

    PiSSA trains B A on top of W - B0 A0, so the learned update is B A - B0 A0 = [B, -B0] [A; A0] (Meng et al. 2024,
    arXiv:2404.02948). PEFT's own conversion, `path_initial_model_for_weight_conversion`, drops the trained head.
    """
    config = model.peft_config[_NAME]
    rank = 2 * config.r
    alpha = 2 * config.lora_alpha  # alpha / rank, the scaling, stays the same
    for module in _lora_layers(model):
        down = module.lora_A[_NAME]
        up = module.lora_B[_NAME]
        start_down, start_up = module.pissa_start
        weight = module.get_base_layer().weight
        original = weight.data.float() + module.scaling[_NAME] * start_up @ start_down
        weight.data = original.to(weight.dtype)
        down.weight = nn.Parameter(torch.cat([down.weight.data, start_down]))
        up.weight = nn.Parameter(torch.cat([up.weight.data, -start_up], dim=1))
        down.out_features = rank
        up.in_features = rank
        module.r[_NAME] = rank
        module.lora_alpha[_NAME] = alpha
    config.r = rank
    config.lora_alpha = alpha


def convert_to_plain_lora(model: PeftModel) -> None:
    """Convert a trained adapter that was initialised by PiSSA or EVA, in place, to one that loads as plain LoRA.

    The base is served in 4 bits, where PEFT refuses PiSSA's initialisation, and without the data that EVA needs.
    """
    config = model.peft_config[_NAME]
    start = getattr(config, "init_lora_weights", True)
    if start == "pissa":
        pissa_to_lora(model)
    if start in ("pissa", "eva"):
        config.init_lora_weights = True
        config.eva_config = None


def _lora_layers(model: PeftModel) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def loraplus_optimizer(model: PeftModel, arguments: TrainingArguments, ratio: float) -> torch.optim.Optimizer:
    """Return the optimizer of the arguments, with `ratio` times the learning rate for LoRA's B (arXiv:2402.12354)."""
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    learning_rate = settings.pop("lr", arguments.learning_rate)
    return create_loraplus_optimizer(
        model,
        optimizer_class,
        lr=learning_rate,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=arguments.weight_decay,
        **settings,
    )
