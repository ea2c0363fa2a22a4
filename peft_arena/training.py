"""Run a recipe: train on the Hugging Face Trainer, checkpoint, resume, evaluate as served, save whole."""

import dataclasses
import datetime
import importlib.util
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy
import pyarrow
import pyarrow.compute
import torch
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
from transformers.trainer_utils import IntervalStrategy, get_last_checkpoint

from . import bases, cards, data, evaluation, machine, methods, procedures, results, store
from .engine import Engine
from .errors import AdapterError, DataError, RecipeError
from .recipes import Recipe
from .rows import Rows, token_ids

RUNS = Path("runs")
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
    model = base_model or _load(base, recipe, num_labels)
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
    if bases.runs_in_bf16(base, method.base_precision):
        methods.skip_casts(model)
    replaced = sum(p.numel() for head in heads for p in head.original_module.parameters())
    return model.train(), total + trainable_params(model) - replaced


def _load(base: bases.Base, recipe: Recipe, num_labels: int) -> PreTrainedModel:
    """The base as it is held while training. Raises RecipeError for an attention it does not have."""
    precision = methods.find(recipe.method).base_precision
    if computes_in_fp16(recipe) and precision == "bf16":
        precision = "fp32"  # what fp16 training takes its weights from
    try:
        return bases.load_model(base, precision, num_labels, recipe.attention)
    except ValueError as error:
        if recipe.attention == "eager":
            raise
        raise RecipeError(
            f"{base.label} has no attention {recipe.attention}: leave --attention out for eager."
        ) from error


def computes_in_fp16(recipe: Recipe) -> bool:
    """Whether training computes in fp16: asked for, and there is CUDA, without which it would be slow."""
    return recipe.precision == "fp16" and torch.cuda.is_available()


def check_machine(recipe: Recipe) -> None:
    """RecipeError when this machine cannot train the recipe; prints what it does in another way."""
    if recipe.attention == "flash_attn" and not torch.cuda.is_available():
        raise RecipeError("attention flash_attn needs CUDA, which is not here: use eager or sdpa.")
    if recipe.attention == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
        raise RecipeError("attention flash_attn needs its package: pip install flash-attn, or use sdpa.")
    if torch.cuda.is_available():
        return
    if recipe.optimizer != "adamw":
        print(f"optimizer {recipe.optimizer} needs CUDA: adamw is used", flush=True)
    if recipe.precision == "fp16":
        print("precision fp16 needs CUDA: bf16 is used", flush=True)


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
        sampler = _Grouped(self.args.train_batch_size * machine.processes(), rows, lengths=rows.lengths)
        sampler.seed = self.args.seed
        sampler.set_epoch(0)
        return sampler

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs = logs | {"memory_mb": machine.memory_mb()}
        super().log(logs, *args, **kwargs)


def trainable_params(model: PreTrainedModel) -> int:
    """Number of single weights that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_parameters(recipe: Recipe) -> tuple[int, int]:
    """Trainable and total parameters of the recipe at true size; needs no network, data or weights."""
    base, num_labels = bases.find(recipe.base_model), len(recipe.label_names or "01")
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
    folder, base = RUNS / recipe.name, bases.find(recipe.base_model)
    if not machine.is_first():
        _train(recipe, base, data.load(recipe), folder, resume, "none")
        return output_dir / recipe.name
    _open_run(recipe, folder, resume)
    splits = data.load(recipe)
    _say_data(splits)
    engine = Engine(base)
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
                base.label, base.revision, bases.sha256_of(bases.locate(base) / "model.safetensors")
            ),
            dataset=splits.facts,
            training=facts,
            evaluation=evaluation.evaluate(engine, recipe.name, splits, baseline, share_texts),
            environment=environment,
            created_at=_now(),
            megabytes=adapter.weights.stat().st_size / 1e6,
        )
        found.write(staging)
        cards.write(found, staging)
    engine.close()
    shutil.rmtree(folder)
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
    splits = data.load(recipe)
    is_same = (splits.facts.revision, splits.facts.splits) == (found.dataset.revision, found.dataset.splits)
    if not is_same or found.evaluation.test_sha256 not in (None, evaluation.digest(splits)):
        raise DataError(
            f"{recipe.dataset} is not the data {name} was measured on ({found.dataset.id}, "
            f"{found.dataset.revision[:12]}): name that file or folder with --dataset."
        )
    engine = Engine(base)
    engine.add(adapter)
    baseline, packages = evaluation.measure_baseline(engine, splits, recipe), machine.environment()["packages"]
    found.evaluation = evaluation.evaluate(engine, name, splits, baseline, share_texts)
    found.evaluation.measured_at = _now()
    found.evaluation.packages = packages if packages != found.environment.get("packages") else None
    found.dataset.source, found.megabytes = splits.facts.source, adapter.weights.stat().st_size / 1e6
    with store.saving(name, output_dir) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        found.write(staging)
        cards.write(found, staging)
    return folder


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _open_run(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Make the run's folder or, for `resume`, find it to be of the same recipe. Raises RecipeError."""
    saved, now = folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=2)
    if resume and not saved.is_file():
        raise RecipeError(f"There is no unfinished run {recipe.name} to resume: leave --resume out to start it.")
    if resume and saved.read_text() != now:
        before, after = json.loads(saved.read_text()), json.loads(now)
        changed = ", ".join(key for key in after if before.get(key) != after[key])
        raise RecipeError(
            f"Run {recipe.name} was started with another {changed}: resume with the same flags, or delete {folder}."
        )
    if not resume and folder.is_dir() and get_last_checkpoint(folder):
        raise RecipeError(
            f"An unfinished run stands in {folder}: add --resume to continue it, or delete that folder to start again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        (folder / machine.EMISSIONS).unlink(missing_ok=True)  # CodeCarbon would add to what an earlier run left
    saved.write_text(now)


def without_paths(recipe: Recipe) -> dict:
    """Recipe fields with local paths cut to their names, since results are published."""
    return {
        key: Path(getattr(recipe, key)).resolve().name
        for key in ("dataset", "base_model")
        if Path(getattr(recipe, key)).exists()
    }


def _say_data(splits: data.Splits) -> None:
    facts = splits.facts
    sizes = ", ".join(f"{name} {size:,}" for name, size in facts.splits.items())
    print(
        f"{facts.id}: {sizes} rows, {len(splits.labels)} labels; removed {facts.empty_removed} empty, "
        f"{facts.duplicates_removed} duplicate, {facts.leaked_removed} standing in a later split",
        flush=True,
    )


def validate(
    recipe: Recipe, splits: data.Splits, folder: Path, watchers: list[TrainerCallback], per_epoch: int
) -> results.Training:
    """Train without measuring on the test split or keeping the weights, for the choice of a recipe.

    Validation is scored `per_epoch` times an epoch, where `watchers` may end it by raising.
    """
    machine.reuse_memory()
    base = bases.find(recipe.base_model)
    return _train(recipe, base, splits, folder, False, "none", watchers, per_epoch)[1]


def _train(
    recipe, base, splits, folder, resume, report_to, watchers=(), per_epoch=1
) -> tuple[PreTrainedModel | PeftModel, results.Training]:
    """Train from the start or, for `resume`, from the last checkpoint."""
    model, total = build(recipe, len(splits.labels))
    tokenizer = bases.load_tokenizer(base)
    room = bases.positions(model) - methods.virtual_tokens(model)
    train = Encoded(tokenizer, splits.train, min(recipe.train_max_length or recipe.max_length, room))
    validation = Encoded(tokenizer, Rows.of(splits.validation), min(recipe.max_length, room))
    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=16)
    checkpoint = get_last_checkpoint(folder) if resume else None
    arguments = _arguments(recipe, base, folder, len(train), report_to)
    if per_epoch > 1:
        arguments.eval_strategy, arguments.eval_steps = (
            IntervalStrategy.STEPS,
            -(-len(train) // recipe.batch_size) // per_epoch or 1,
        )
    method = methods.find(recipe.method)
    if method.look:
        method.look(model, _batches(train, collate, recipe), base.architecture.autocast)
    callbacks = [method.callback(model, checkpoint)] if method.callback else []
    optimizer = procedures.loraplus_optimizer(model, arguments, recipe.lr_ratio) if recipe.lr_ratio else None
    with machine.peak_memory() as peak:
        progress = Progress(folder, checkpoint is not None, peak)
        trainer = _Trainer(
            model,
            arguments,
            collate,
            train,
            validation,
            compute_metrics=_metrics,
            callbacks=[progress, *callbacks, *watchers],
            optimizers=(optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            if not _is_scored(trainer.state):
                trainer.evaluate()  # the last checkpoint is older than the last epoch's evaluation
        finally:
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
        epochs=epochs_of(history),
        losses=_logged(history, "loss"),
        learning_rates=_logged(history, "learning_rate"),
        memory_mb=_logged(history, "memory_mb"),
        **machine.emissions(folder / machine.EMISSIONS, progress.seconds),
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


def _arguments(recipe: Recipe, base: bases.Base, folder: Path, rows: int, report_to: str) -> TrainingArguments:
    steps, processes = -(-rows // recipe.batch_size), machine.processes()
    if recipe.batch_size % processes:
        raise RecipeError(
            f"batch_size {recipe.batch_size} cannot be shared by {processes} processes: use a multiple of {processes}."
        )
    in_bf16 = base.architecture.autocast and not computes_in_fp16(recipe)
    on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    if report_to == "tensorboard":  # its files would else stand in the run's folder, which goes when it is done
        os.environ["TENSORBOARD_LOGGING_DIR"] = _TENSORBOARD or str(folder.parent / "logs" / recipe.name)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size // processes,
        per_device_eval_batch_size=32,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        optim="paged_adamw_8bit"
        if recipe.optimizer == "paged_adamw_8bit" and torch.cuda.is_available()
        else "adamw_torch",
        # Rows of like length in a batch: IMDb's padding falls from over half of the tokens to a few percent.
        train_sampling_strategy="group_by_length",
        # Full fine-tuning keeps fp32 weights and still computes in bf16, so its precision is not asked here.
        bf16=in_bf16 and (on_cpu or torch.cuda.is_available()),
        fp16=base.architecture.autocast and computes_in_fp16(recipe),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=max(25, steps // 10),
        save_total_limit=1,
        logging_steps=max(1, steps // 10),
        seed=recipe.seed,
        report_to=report_to,
        project="peft-arena",
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


class Progress(TrainerCallback):
    """A bar with the time left, a table line per epoch, and time and memory kept across resumes."""

    def __init__(self, folder: Path, resumed: bool, peak: machine.Peak):
        self._clock, self._peak = folder / "clock.json", peak
        self.seconds = 0.0
        if resumed and self._clock.is_file():
            self.seconds, peak.mb = json.loads(self._clock.read_text())
        self._mark = 0.0
        self._bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        quiet = not machine.is_first()
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
        self._clock.write_text(json.dumps([self.seconds, self._peak.mb]))
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
