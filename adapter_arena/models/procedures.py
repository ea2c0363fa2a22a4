"""What some methods do beside having a PEFT config: before, while and after they are trained."""

from pathlib import Path

import torch
from peft import PeftModel, initialize_lora_eva_weights
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from adapter_arena.models import bases
from adapter_arena.models.fast import attention

_NAME = "default"
"""The one adapter of a model in training, as `get_peft_model` names it."""


class Allocate(TrainerCallback):
    """AdaLoRA: after each step ranks of little importance are masked, down to the budget.

    The share of the steps before the first and after the last masking is that of the paper's run on
    SST-2: 6,000 and 22,000 of 50,500 (Zhang et al. 2023, arXiv:2303.10512, appendix). Its state is kept in
    the checkpoints, so that a resumed run masks the same.
    """

    FILE = "adalora.pt"

    def __init__(self, model: PeftModel, checkpoint: str | None):
        self._model, self._checkpoint = model.base_model, checkpoint
        self._config, self._allocator = model.peft_config[_NAME], model.base_model.rankallocator
        self._pattern: dict | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._config.total_step = state.max_steps
        self._config.tinit, self._config.tfinal = int(0.12 * state.max_steps), int(0.44 * state.max_steps)
        if self._checkpoint:
            saved = torch.load(Path(self._checkpoint) / self.FILE, weights_only=True, map_location=args.device)
            self._pattern = saved["pattern"]
            self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc = saved["importance"], saved["uncertainty"]
            self._allocator.ipt = dict.fromkeys(saved["importance"])

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self._config.total_step - self._config.tfinal < 2:
            return  # nothing is known yet of any rank's importance
        self._config.rank_pattern = self._pattern
        self._model.update_and_allocate(state.global_step + 1)
        # PEFT cuts what it saves to the pattern, and such a checkpoint would not fit the model it resumes.
        self._pattern, self._config.rank_pattern = self._config.rank_pattern, None

    def on_save(self, args, state, control, **kwargs):
        found = self._allocator
        content = {"pattern": self._pattern, "importance": found.exp_avg_ipt, "uncertainty": found.exp_avg_unc}
        torch.save(content, Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.FILE)

    def on_train_end(self, args, state, control, **kwargs):
        self._config.rank_pattern = self._pattern


def initialise_eva(model: PeftModel, batches: list[dict[str, torch.Tensor]]) -> None:
    """Start LoRA's A from the main directions of what each layer is given (EVA, arXiv:2410.07170).

    `batches` have input_ids and attention_mask of training rows; they are repeated until the directions settle.
    """

    def forward(model: PeftModel, batch: dict[str, torch.Tensor]) -> None:
        with bases.autocast(model):
            model(**batch)

    with attention.every_token(model):
        initialize_lora_eva_weights(
            model, batches, forward_fn=forward, prepare_layer_inputs_fn=_read_tokens, show_progress_bar=False
        )


def _read_tokens(layer_input, positions: torch.Tensor, layer_name: str) -> torch.Tensor:
    """What a layer is given for the tokens at `positions` (n, 2), without padding, shape (n, features), fp32."""
    first = layer_input if isinstance(layer_input, torch.Tensor) else layer_input[0]
    # DeBERTa gives its projections the relative positions too, of shape (1, n, features).
    if positions[:, 0].max() >= len(first):
        return first.flatten(0, -2).float()
    return first[positions.T.unbind()].float()


def remember_pissa(model: PeftModel) -> None:
    """Keep what PiSSA took out of each weight, for `plain_lora`; to be called before any training."""
    for module in _lora_layers(model):
        module.pissa_start = tuple(part[_NAME].weight.detach().clone() for part in (module.lora_A, module.lora_B))


def plain_lora(model: PeftModel) -> None:
    """Turn a trained PiSSA adapter into LoRA of twice the rank that fits the base's own weights; in place.

    PiSSA trains B A beside W - B0 A0, so what it learned is B A - B0 A0 = [B, -B0] [A; A0] (Meng et al. 2024,
    arXiv:2404.02948; PEFT's own `path_initial_model_for_weight_conversion` leaves the trained head out).
    """
    config = model.peft_config[_NAME]
    for module in _lora_layers(model):
        down, up, (down0, up0) = module.lora_A[_NAME], module.lora_B[_NAME], module.pissa_start
        weight = module.get_base_layer().weight
        weight.data = (weight.data.float() + module.scaling[_NAME] * up0 @ down0).to(weight.dtype)
        down.weight = nn.Parameter(torch.cat([down.weight.data, down0]))
        up.weight = nn.Parameter(torch.cat([up.weight.data, -up0], dim=1))
        module.r[_NAME], module.lora_alpha[_NAME] = 2 * config.r, 2 * config.lora_alpha
        down.out_features = up.in_features = 2 * config.r
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha  # their ratio, the scaling, stays


def make_plain(model: PeftModel) -> None:
    """Have a trained LoRA of another start (PiSSA, EVA) need only the base and its own file, in place.

    A served base has no weights to take directions from (PEFT refuses PiSSA on 4 bits) and no data.
    """
    config = model.peft_config[_NAME]
    start = getattr(config, "init_lora_weights", True)
    if start == "pissa":
        plain_lora(model)
    if start in ("pissa", "eva"):
        config.init_lora_weights, config.eva_config = True, None


def _lora_layers(model: PeftModel) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def loraplus_optimizer(model: PeftModel, arguments: TrainingArguments, ratio: float) -> torch.optim.Optimizer:
    """The arguments' optimiser with LoRA's B trained at `ratio` times the learning rate (arXiv:2402.12354)."""
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    settings = settings | {"loraplus_weight_decay": arguments.weight_decay}
    rate = settings.pop("lr", arguments.learning_rate)
    return create_loraplus_optimizer(model, kind, lr=rate, loraplus_lr_ratio=ratio, **settings)
