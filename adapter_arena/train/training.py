"""Run a recipe: train on the Hugging Face Trainer, checkpoint, resume, evaluate as served, save whole."""

import dataclasses
import datetime
import importlib.util
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

import numpy
import pyarrow
import pyarrow.compute
import torch
from accelerate.utils.memory import should_reduce_batch_size
from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from adapter_arena import files, machine, results
from adapter_arena.adapters import cards, store
from adapter_arena.data import load
from adapter_arena.data.rows import Rows, token_ids
from adapter_arena.errors import AdapterError, DataError, RecipeError, Terminated, TrainingError
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases, compute, methods, procedures
from adapter_arena.models.fast import low_rank
from adapter_arena.recipe import Recipe
from adapter_arena.serve.engine import Engine
from adapter_arena.train import evaluation, runs

_TENSORBOARD = os.environ.get("TENSORBOARD_LOGGING_DIR")


class Encoded(Dataset):
    """Rows as the Trainer takes them: input_ids, attention_mask, labels."""

    def __init__(self, tokenizer, chosen: Rows, max_length: int):
        self._ids = token_ids(tokenizer, chosen, max_length)
        self._labels = chosen.labels.tolist()
        self.lengths: list[int] = pyarrow.compute.list_value_length(self._ids).to_pylist()
        """Tokens of each row."""

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict:
        ids = self._ids[index].values.to_numpy().tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self._labels[index]}


def build(
    recipe: Recipe, num_labels: int, base_model: PreTrainedModel | None = None
) -> tuple[PreTrainedModel | PeftModel, int]:
    """The model to train and its total parameters; `base_model` stands in for the loaded base.

    The total counts the base with its head and what the method adds, each weight once. Raises
    RecipeError when the target modules are not in the base.
    """
    base, method = bases.find(recipe.base_model), methods.find(recipe.method)
    set_seed(recipe.seed)
    dtype = compute_type(recipe)
    model = base_model or _load(base, recipe, num_labels, dtype)
    # A 4-bit weight is stored as bytes that hold two values each.
    total = sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in model.parameters())
    if method.config is None:
        return model.train(), total
    try:
        model = get_peft_model(model, methods.fit_prompt(method.config(recipe, base.architecture), model.config))
    except ValueError as error:
        raise RecipeError(
            f"target_modules {recipe.target_modules!r} cannot be adapted in {base.label}: "
            f"{' '.join(str(error).split())[:160]} Choose among {', '.join(base.architecture.all_linear)}."
        ) from error
    if method.wrapped:
        method.wrapped(model)
    heads = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    for head in heads:
        head.modules_to_save.float()  # a bf16 weight is too coarse to take small updates
    if dtype != torch.float32:
        methods.skip_casts(model)
    low_rank.accelerate(model)
    replaced = sum(p.numel() for head in heads for p in head.original_module.parameters())
    return model.train(), total + trainable_params(model) - replaced


def _load(base: bases.Base, recipe: Recipe, num_labels: int, dtype: torch.dtype) -> PreTrainedModel:
    """Return the base as it is held while training. Raises RecipeError for an attention it does not have."""
    precision = methods.find(recipe.method).base_precision
    if dtype == torch.float16:
        dtype = torch.bfloat16
        if precision == "bf16":
            precision = "fp32"  # fp16 training keeps its weights in fp32
    try:
        return bases.load_model(base, precision, num_labels, recipe.attention, dtype)
    except ValueError as error:
        if recipe.attention == "eager":
            raise
        raise RecipeError(
            f"{base.label} has no attention {recipe.attention}: leave --attention out for eager."
        ) from error


def compute_type(recipe: Recipe) -> torch.dtype:
    """Return the type, bf16, fp32 or fp16, that training by the recipe computes in on this machine.

    `precision: auto` takes the faster one, and so does fp16 without CUDA.
    """
    if not bases.find(recipe.base_model).architecture.autocast:
        return torch.float32
    if recipe.training_arguments.get("fp16") and torch.cuda.is_available():
        return torch.float16
    return compute.choose(recipe.precision if recipe.precision in compute.TYPES else None)


def _engine(recipe: Recipe) -> Engine:
    """Return an engine that computes in the type of the training, or for fp16 in the faster one of this machine."""
    dtype = compute_type(recipe)
    return Engine(bases.find(recipe.base_model), dtype=None if dtype == torch.float16 else dtype)


def check_machine(recipe: Recipe) -> None:
    """RecipeError when this machine cannot train the recipe; prints what it does in another way."""
    if recipe.attention == "flash_attn" and not torch.cuda.is_available():
        raise RecipeError("attention flash_attn needs CUDA, which is not here: use eager or sdpa.")
    if recipe.attention == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
        raise RecipeError("attention flash_attn needs its package: pip install flash-attn, or use sdpa.")
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise RecipeError(
            "FSDP is not for these bases: each fits one GPU many times over, and an adapter is saved whole; launch with "
            "--multi_gpu."
        )
    if torch.cuda.is_available():
        return
    if recipe.optimizer != "adamw":
        print(f"optimizer {recipe.optimizer} needs CUDA: adamw is used", flush=True)
    if recipe.training_arguments.get("fp16"):
        print(f"precision fp16 needs CUDA: {compute.name_of(compute_type(recipe))} is used", flush=True)


class _Grouped(LengthGroupedSampler):
    """Batches of like length, in an order that each later epoch draws from its own seed.

    Drawn from torch's global state, as in the first epoch, it could not be drawn again by a run that
    is resumed in a later one.
    """

    seed = 0

    def set_epoch(self, epoch: int) -> None:
        is_drawn_here = epoch or machine.processes() > 1  # several processes must draw the same order
        self.generator = torch.Generator().manual_seed(self.seed + epoch) if is_drawn_here else None


class _Trainer(Trainer):
    def _get_train_sampler(self, train_dataset: Encoded | None = None) -> _Grouped:
        rows = train_dataset or self.train_dataset
        # Grouped by the batch of all processes together, whose parts each of them takes in turn.
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * machine.processes()
        sampler = _Grouped(together, rows, lengths=rows.lengths)
        sampler.seed = self.args.seed
        sampler.set_epoch(0)
        return sampler

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            self._stop(f"The loss is {loss.item()} at step {self.state.global_step + 1:,}")
        return loss

    def _save_checkpoint(self, model, *args, **kwargs) -> None:
        if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
            self._stop(f"A weight is no number after step {self.state.global_step:,}")  # the next loss would tell
        super()._save_checkpoint(model, *args, **kwargs)

    def _stop(self, what: str) -> NoReturn:
        last = runs.last_checkpoint(Path(self.args.output_dir))
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint from before"
        rate = self.args.learning_rate
        raise TrainingError(f"{what}; {kept}. Start again with an --lr below {rate:g} or another --name.")

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs = logs | {"memory_mb": machine.memory_mb()}
        super().log(logs, *args, **kwargs)


def trainable_params(model: PreTrainedModel) -> int:
    """Number of single weights that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_parameters(recipe: Recipe) -> tuple[int, int]:
    """Trainable and total parameters of the recipe at true size; needs no network, data or weights."""
    base, num_labels = bases.find(recipe.base_model), recipe.num_labels
    with torch.device("meta"):
        model, total = build(recipe, num_labels, bases.meta_model(base, num_labels))
    return trainable_params(model), total


def run(
    recipe: Recipe,
    output_dir: Path = store.FOLDER,
    resume: bool = False,
    report_to: str = "none",
    share_texts: bool = False,
) -> Path:
    """Train, evaluate as served and save `output_dir/<name>`; returns that folder.

    The folder appears whole or not at all. Interrupted, the run stands in `runs/<name>` and
    `resume` continues it to the same result. `share_texts` lets excerpts of local texts into the
    results. Of several processes (`accelerate launch`) all train; the first alone measures and writes,
    after the others have left. Raises ArenaError.
    """
    check_machine(recipe)
    machine.release_memory()
    machine.reuse_memory()
    environment = machine.environment()  # of the code that is loaded now, whatever is edited while it trains
    base = bases.find(recipe.base_model)
    if not machine.is_first():
        _train(recipe, base, load.load_splits(recipe), runs.FOLDER / recipe.name, resume, "none")
        return output_dir / recipe.name
    with explain_disk_errors("run the same command with --resume"), runs.held(recipe, resume) as folder:
        splits = load.load_splits(recipe)
        runs.check_data(folder, splits)
        _say_data(splits)
        print(compute.describe(compute_type(recipe)), flush=True)
        engine = _engine(recipe)
        baseline = evaluation.measure_baseline(engine, splits, recipe)
        print(
            f"untrained baseline: accuracy {baseline.accuracy:.1%}, F1 {baseline.f1:.3f} on {len(splits.test)} test rows",
            flush=True,
        )
        model, facts = _train(recipe, base, splits, folder, resume, report_to)
        with store.saving(recipe.name, output_dir) as staging:
            _save(model, base, splits.labels, staging)
            adapter = dataclasses.replace(store.read(staging, base), name=recipe.name, labels=splits.labels)
            engine.add(adapter, recipe.max_length)
            found = results.Results(
                name=recipe.name,
                method=recipe.method,
                recipe=dataclasses.asdict(recipe) | without_paths(recipe),
                labels=splits.labels,
                base_model=results.BaseFacts(
                    base.label, base.revision, files.sha256_of(bases.locate(base) / "model.safetensors")
                ),
                dataset=splits.facts,
                training=facts,
                evaluation=evaluation.evaluate(engine, recipe.name, splits, baseline, share_texts),
                environment=environment,
                created_at=_now(),
                megabytes=adapter.size / 1e6,
            )
            found.write(staging)
            cards.write(found, staging)
        engine.close()
    return output_dir / recipe.name


def measure(name: str, recipe: Recipe, output_dir: Path = store.FOLDER, share_texts: bool = False) -> Path:
    """Evaluate the adapter `output_dir/name`, trained by `recipe`, again with what is installed now.

    Its results, plots and card change together or not at all. Raises ArenaError, also when the data
    are not those that the adapter was measured on.
    """
    base, folder = bases.find(recipe.base_model), output_dir / name
    adapter = store.read(folder, base)
    found = adapter.results
    if found is None:
        raise AdapterError(f"Adapter {name} has no {results.FILE}, so how it was measured is unknown: train it again.")
    splits = load.load_splits(recipe)
    if not evaluation.is_of(found, splits):
        raise DataError(
            f"{recipe.dataset} is not the data {name} was measured on ({found.dataset.id}, "
            f"{found.dataset.revision[:12]}): name that file or folder with --dataset."
        )
    engine = _engine(recipe)
    engine.add(adapter)
    baseline, packages = evaluation.measure_baseline(engine, splits, recipe), machine.environment()["packages"]
    found.evaluation = evaluation.evaluate(engine, name, splits, baseline, share_texts)
    found.evaluation.measured_at = _now()
    found.evaluation.packages = packages if packages != found.environment.get("packages") else None
    found.dataset.source, found.megabytes = splits.facts.source, adapter.size / 1e6
    with explain_disk_errors("measure again"), store.saving(name, output_dir) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        found.write(staging)
        cards.write(found, staging)
    return folder


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def without_paths(recipe: Recipe) -> dict:
    """Recipe fields with local paths cut to their names, since results are published."""
    return {
        key: Path(getattr(recipe, key)).resolve().name
        for key in ("dataset", "base_model")
        if Path(getattr(recipe, key)).exists()
    }


def _say_data(splits: load.Splits) -> None:
    facts = splits.facts
    sizes = ", ".join(f"{name} {size:,}" for name, size in facts.splits.items())
    print(
        f"{facts.id}: {sizes} rows, {len(splits.labels)} labels; removed {facts.empty_removed} empty, "
        f"{facts.duplicates_removed} duplicate, {facts.leaked_removed} standing in a later split",
        flush=True,
    )


def validate(
    recipe: Recipe, splits: load.Splits, folder: Path, watchers: list[TrainerCallback], per_epoch: int
) -> results.Training:
    """Train without measuring on the test split or keeping the weights, for the choice of a recipe.

    Validation is scored `per_epoch` times an epoch, where `watchers` may end it by raising.
    """
    check_machine(recipe)
    machine.reuse_memory()
    base = bases.find(recipe.base_model)
    return _train(recipe, base, splits, folder, False, "none", watchers, per_epoch)[1]


def _train(
    recipe, base, splits, folder, resume, report_to, watchers=(), per_epoch=1
) -> tuple[PreTrainedModel | PeftModel, results.Training]:
    """Train from the start or, for `resume`, from the last checkpoint.

    Where memory is short, a batch is computed in more and smaller parts, whose gradients are added up. Raises
    TrainingError.
    """
    parts = 1
    while True:
        try:
            return _attempt(recipe, base, splits, folder, resume, report_to, watchers, per_epoch, parts)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            rows = recipe.batch_size // machine.processes() // parts
            if rows % 2 or machine.processes() > 1:
                raise TrainingError(
                    f"Memory is too short for {rows} rows at a time: lower --train-max-length or --batch-size, "
                    "or take --method qlora; --resume goes on from the last checkpoint."
                ) from error
        parts, resume = 2 * parts, True
        machine.release_memory()  # the error that held the model is gone by now
        torch.cuda.empty_cache()
        print(
            f"memory is short: {rows // 2} rows at a time, {parts} times a step, from the last checkpoint on",
            flush=True,
        )


def _attempt(
    recipe, base, splits, folder, resume, report_to, watchers, per_epoch, parts
) -> tuple[PreTrainedModel | PeftModel, results.Training]:
    """Train with every batch in `parts`."""
    model, total = build(recipe, len(splits.labels))
    tokenizer = bases.load_tokenizer(base)
    room = bases.positions(model) - methods.virtual_tokens(model)
    train = Encoded(tokenizer, splits.train, min(recipe.train_max_length or recipe.max_length, room))
    validation = Encoded(tokenizer, Rows.of(splits.validation), min(recipe.max_length, room))
    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=16)
    checkpoint = runs.last_checkpoint(folder) if resume else None
    arguments = _arguments(recipe, base, folder, len(train), report_to, parts, per_epoch)
    method = methods.find(recipe.method)
    if method.look:
        method.look(model, _batches(train, collate, recipe))
    callbacks = [method.callback(model, checkpoint)] if method.callback else []
    optimizer = procedures.loraplus_optimizer(model, arguments, recipe.lr_ratio) if recipe.lr_ratio else None
    with machine.peak_memory() as peak:
        dtype = compute_type(recipe)
        progress, ending = Progress(checkpoint, peak, compute.name_of(dtype)), _Ending()
        trainer = _Trainer(
            model,
            arguments,
            collate,
            train,
            validation,
            compute_metrics=_metrics,
            callbacks=[ending, *callbacks, *watchers, progress],  # whose mark of a whole checkpoint is the last of it
            optimizers=(optimizer, None),
        )
        progress.trainer = trainer
        # Its classifiers' losses are means over the rows they are given, whatever they are told of the other parts.
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        if machine.processes() > 1:
            _check_shared(trainer, folder, checkpoint, dtype)
        try:
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
            if ending.told:
                raise Terminated
            if not _is_scored(trainer.state):
                trainer.evaluate()  # the last checkpoint is older than the last epoch's evaluation
        finally:
            ending.close()
            progress.close()
    trainable, history = trainable_params(model), trainer.state.log_history
    if machine.processes() > 1:
        peak.mb = float(trainer.accelerator.gather(torch.tensor([peak.mb], device=arguments.device)).sum())
    return model, results.Training(
        trainable_params=trainable,
        total_params=total,
        trainable_percent=100 * trainable / total,
        seconds=progress.seconds,
        samples_per_second=len(train) * recipe.epochs / progress.seconds,
        peak_memory_mb=peak.mb,
        device=machine.device_name(),
        compute=compute.name_of(dtype),
        stages=progress.stages if len(progress.stages) > 1 else [],
        epochs=epochs_of(history),
        losses=_logged(history, "loss"),
        learning_rates=_logged(history, "learning_rate"),
        memory_mb=_logged(history, "memory_mb"),
        **machine.emissions(folder / machine.EMISSIONS, progress.seconds),
    )


def _check_shared(trainer: Trainer, folder: Path, checkpoint: Path | None, dtype: torch.dtype) -> None:
    """Raise RecipeError for processes that start from different steps or compute in different types.

    They start from different steps on machines that do not share a folder.
    """
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    here = torch.tensor([[step, dtype.itemsize]], device=trainer.args.device)
    steps, sizes = trainer.accelerator.gather(here).T.tolist()
    if len(set(sizes)) > 1:
        raise RecipeError("The processes' machines are fastest in different types: add --precision fp32 or bf16.")
    if len(set(steps)) > 1:
        raise RecipeError(
            f"The processes see different checkpoints in {folder} (steps {steps}): start them in one folder that all "
            "machines share."
        )


def _is_scored(state: TrainerState) -> bool:
    """Whether validation was scored after the last step; not when the last checkpoint is younger."""
    return any("eval_loss" in entry and entry["step"] == state.global_step for entry in state.log_history)


def _logged(history: list[dict], what: str) -> list[list[float]]:
    """[step, value] of each line of the log that has it."""
    return [[float(entry["step"]), entry[what]] for entry in history if "loss" in entry and what in entry]


def _batches(train: Encoded, collate: DataCollatorWithPadding, recipe: Recipe) -> list[dict[str, torch.Tensor]]:
    """At most 64 batches of random training rows, without labels."""
    order = numpy.random.default_rng(recipe.seed).permutation(len(train))[: 64 * recipe.batch_size]
    rows = [{key: value for key, value in train[i].items() if key != "labels"} for i in order]
    return [dict(collate(rows[i : i + recipe.batch_size])) for i in range(0, len(rows), recipe.batch_size)]


def _arguments(
    recipe: Recipe, base: bases.Base, folder: Path, rows: int, report_to: str, parts: int = 1, per_epoch: int = 1
) -> TrainingArguments:
    steps, processes = -(-rows // recipe.batch_size), machine.processes()
    if recipe.batch_size % processes:
        raise RecipeError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: use a multiple of {processes}."
        )
    dtype = compute_type(recipe)
    on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    if report_to == "tensorboard":  # its files would else stand in the run's folder, which goes when it is done
        os.environ["TENSORBOARD_LOGGING_DIR"] = _TENSORBOARD or str(folder.parent / "logs" / recipe.name)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size // processes // parts,
        gradient_accumulation_steps=parts,
        per_device_eval_batch_size=max(1, 32 // parts),
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        optim="paged_adamw_8bit"
        if recipe.optimizer == "paged_adamw_8bit" and torch.cuda.is_available()
        else "adamw_torch",
        # Rows of like length in a batch: IMDb's padding falls from over half of the tokens to a few percent.
        train_sampling_strategy="group_by_length",
        # Full fine-tuning keeps fp32 weights and may still compute in bf16.
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        # By steps, since what is scored at an epoch's end is scored after that step's checkpoint is saved.
        eval_strategy="steps",
        eval_steps=steps // per_epoch or 1,
        save_strategy="steps",
        save_steps=max(25, steps // 10),
        save_total_limit=2,  # the older is gone only after the younger is whole
        logging_steps=max(1, steps // 10),
        seed=recipe.seed,
        report_to=report_to,
        project="adapter-arena",
        run_name=recipe.name,
        trackio_space_id=os.environ.get("TRACKIO_SPACE_ID"),  # kept on this machine without one
        trackio_static_space_id=False,
        ddp_backend="gloo" if on_cpu and processes > 1 else None,
        average_tokens_across_devices=False,  # a classifier's loss is a mean over rows, which DDP averages itself
        ddp_find_unused_parameters=False,
        ddp_timeout=4 * 3600,  # the others wait while the first measures
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # two GPUs in one process would halve nothing and double the batch
    return arguments


def _metrics(prediction) -> dict[str, float]:
    predicted = numpy.argmax(prediction.predictions, axis=1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, predicted)),
        "f1": float(f1_score(prediction.label_ids, predicted, average="macro")),
    }


class _Ending(TrainerCallback):
    """SIGTERM, which comes before a machine is taken away: the step is finished and a checkpoint saved, then it stops.

    Of several processes each would hear it in another step; they end at once, at the checkpoint before.
    """

    told = False
    _before = None

    def on_train_begin(self, args, state, control, **kwargs):
        if machine.processes() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, *_) -> None:
        self.told = True
        self.close()  # asked twice, it ends at once

    def on_step_end(self, args, state, control, **kwargs):
        if self.told:
            control.should_save = control.should_training_stop = True

    def close(self) -> None:
        """Have SIGTERM do what it did before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


class Progress(TrainerCallback):
    """A bar with the time left, a table line per epoch; time, memory and the loss that is not logged yet in checkpoints."""

    def __init__(self, checkpoint: Path | None, peak: machine.Peak, computes_in: str):
        self._peak = peak
        self.seconds = 0.0
        self.trainer: Trainer | None = None
        self._known = runs.known(checkpoint) if checkpoint else {}
        self.stages = [results.Stage(**stage) for stage in self._known.get("stages", [])]
        """The machines it was trained on, in order."""
        step = 0
        if checkpoint:
            self.seconds, peak.mb = self._known["seconds"], self._known["peak_mb"]
            step = int(checkpoint.name.rpartition("-")[2])
        self._begin_stage(results.Stage(step, machine.device_name(), computes_in))
        self._mark = 0.0
        self._bar = None

    def _begin_stage(self, now: results.Stage) -> None:
        before = self.stages[-1] if self.stages else now
        if (before.device, before.compute) == (now.device, now.compute):
            self.stages = self.stages or [now]
            return
        self.stages.append(now)
        if machine.is_first():
            print(
                f"resumed on another machine: {now.compute} on {now.device}, before it {before.compute} on "
                f"{before.device}; the results name both",
                flush=True,
            )

    def on_train_begin(self, args, state, control, **kwargs):
        quiet = not machine.is_first()
        if "loss" in self._known:  # of the steps since it was logged: the Trainer forgets these
            self.trainer._tr_loss.fill_(self._known["loss"])
            self.trainer._globalstep_last_logged = self._known["logged"]
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True, disable=quiet
        )
        if not quiet:
            tqdm.write("epoch  train loss  validation loss  accuracy     F1")
        self._mark = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now
        self._bar.update(state.global_step - self._bar.n)

    def on_save(self, args, state, control, **kwargs):
        if machine.processes() > 1:
            torch.distributed.barrier()  # the others' random states are in it
        if machine.is_first():
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            loss, logged = self.trainer._tr_loss.item(), self.trainer._globalstep_last_logged
            facts = {"seconds": self.seconds, "peak_mb": self._peak.mb, "loss": loss, "logged": logged}
            facts["stages"] = [dataclasses.asdict(stage) for stage in self.stages]
            runs.make_whole(checkpoint, facts)
        self._mark = time.perf_counter()

    def on_evaluate(self, args, state, control, **kwargs):
        row = epochs_of(state.log_history)[-1]
        if machine.is_first():
            tqdm.write(
                f"{row.epoch:5}  {row.train_loss:10.4f}  {row.validation_loss:15.4f}  "
                f"{row.validation_accuracy:8.4f}  {row.validation_f1:.4f}"
            )
        self._mark = time.perf_counter()

    def close(self) -> None:
        """Take the bar off the terminal, also after Ctrl-C."""
        if self._bar is not None:
            self._bar.close()


def epochs_of(history: list[dict]) -> list[results.Epoch]:
    """The Trainer's log as one row an epoch; the train loss is the mean of the epoch's logged losses."""
    rows = []
    for entry in (entry for entry in history if "eval_loss" in entry):
        epoch, since = entry["epoch"], rows[-1].epoch if rows else 0
        epoch = round(epoch) if abs(epoch - round(epoch)) < 0.01 else round(epoch, 2)
        losses = [e["loss"] for e in history if "loss" in e and since < e["epoch"] <= epoch] or [float("nan")]
        rows.append(
            results.Epoch(
                epoch, float(numpy.mean(losses)), entry["eval_loss"], entry["eval_accuracy"], entry["eval_f1"]
            )
        )
    return rows


def _save(model: PreTrainedModel | PeftModel, base: bases.Base, labels: list[str], folder: Path) -> None:
    """Write the trained weights as they are served: PEFT's files, or for `full` the whole model in NF4."""
    if isinstance(model, PeftModel):
        procedures.make_plain(model)
        config = model.peft_config["default"]
        config.base_model_name_or_path, config.revision = base.label, base.revision
        model.save_pretrained(folder, save_embedding_layers=False)
        return
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    with tempfile.TemporaryDirectory() as exact:
        model.save_pretrained(exact)
        bases.quantise_folder(Path(exact), folder, base.architecture)
