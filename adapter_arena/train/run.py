"""Run a recipe: load, train, evaluate the adapter as it is served, and save it."""

import dataclasses
import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from peft import PeftModel
from transformers import DataCollatorWithPadding, PreTrainedModel, TrainerCallback

from adapter_arena import machine, results, settings, tasks
from adapter_arena.adapters import cards, store
from adapter_arena.data import load, summary
from adapter_arena.data.rows import Rows
from adapter_arena.errors import DataError, RecipeError, Terminated, TrainingError
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases, compute, loading, methods, procedures, servable, templates, weights
from adapter_arena.recipe import Recipe
from adapter_arena.serve.engine import Engine
from adapter_arena.train import (
    arguments,
    balance,
    baselines,
    checkpoints,
    curve,
    evaluation,
    history,
    selection,
    task_evaluation,
    trainable,
    trainer,
)
from adapter_arena.train.callbacks import Progress, StopOnSigterm


@dataclass(frozen=True)
class Job:
    """One training: what is trained, where its checkpoints are, and how it is observed."""

    recipe: Recipe
    splits: load.Splits
    folder: Path
    """Folder of the checkpoints."""
    resume: bool = False
    """Whether to continue from the last checkpoint."""
    report_to: str = "none"
    callbacks: tuple[TrainerCallback, ...] = ()
    evaluations_per_epoch: int = 1
    curve_points: int = curve.POINTS
    """Number of points of the learning curve after step 0; none is recorded if it is 0."""
    accumulation_steps: int = 1
    """Number of parts in which a batch is computed, whose gradients are summed."""

    @property
    def rows_per_pass(self) -> int:
        """Number of rows in one forward pass of one process."""
        return self.recipe.batch_size // machine.world_size() // self.accumulation_steps


def train(
    recipe: Recipe,
    output_dir: Path = store.FOLDER,
    resume: bool = False,
    report_to: str = "none",
    share_texts: bool = False,
) -> Path:
    """Train, evaluate and save the adapter `output_dir/<name>`; return that folder.

    The folder appears complete or not at all. An interrupted run keeps its checkpoints in `runs/<name>`, and `resume`
    continues it to the same result. With `share_texts` the results contain excerpts of local texts. If there are
    several processes (`accelerate launch`), all train, and the first one evaluates and saves after the others have
    ended. Raises ArenaError.
    """
    base = bases.find(recipe.base_model)
    arguments.check_machine(recipe)
    trainable.check_memory(recipe)
    machine.release_memory()
    environment = machine.environment()  # now: the code on disk may change while it trains
    if not machine.is_main_process():
        fit(Job(recipe, load.load_splits(recipe), checkpoints.FOLDER / recipe.name, resume))
        return output_dir / recipe.name
    with (
        explain_disk_errors("run the same command with --resume"),
        checkpoints.run_folder(recipe, resume) as folder,
    ):
        splits = load.load_splits(recipe)
        checkpoints.check_data(folder, splits)
        print("\n".join(summary.lines(splits)), flush=True)
        selection.check_task(recipe, splits.task)
        weights_line = balance.describe(recipe, splits)
        if weights_line:
            print(weights_line, flush=True)
        print(compute.describe(arguments.compute_type(recipe)), flush=True)
        engine = new_engine(recipe)
        measures = _measures(splits)
        baseline = measures.measure_baseline(engine, splits, recipe)
        scores = measures.describe_baseline(baseline)
        print(f"untrained baseline: {scores} on {len(splits.test)} test rows", flush=True)
        network, training = fit(Job(recipe, splits, folder, resume, report_to))
        # After the training, whose peak of memory must not depend on whether they are in the cache.
        simple_baselines = baselines.measure(engine, splits, recipe)
        baselines.print_scores(simple_baselines, len(splits.train))
        weights_sha256 = weights.sha256(bases.locate(base))
        with store.saving(recipe.name, output_dir) as staging:
            trainable.save(network, base, splits.labels, staging)
            adapter = dataclasses.replace(
                store.read(staging, base),
                name=recipe.name,
                labels=splits.labels,
                task=splits.task,
                scale=splits.scale,
            )
            engine.add(adapter, recipe.max_length)
            measured = measures.evaluate(engine, recipe.name, splits, baseline, share_texts)
            measured.baselines = simple_baselines
            found = results.Results(
                name=recipe.name,
                method=recipe.method,
                recipe=dataclasses.asdict(recipe) | without_paths(recipe),
                labels=splits.labels,
                base_model=_base_facts(base, weights_sha256, _pair_separator(base, splits)),
                dataset=splits.facts,
                training=training,
                evaluation=measured,
                environment=environment,
                created_at=utc_now(),
                megabytes=adapter.size / 1e6,
                task=splits.task,
                scale=splits.scale,
            )
            found.write(staging)
            cards.write(found, staging)
        engine.close()
    return output_dir / recipe.name


def _base_facts(base: bases.Base, sha256: str, pair_separator: str | None) -> results.BaseFacts:
    architecture = base.architecture
    return results.BaseFacts(
        base.label,
        base.revision,
        sha256,
        head=list(architecture.head),
        autocast=architecture.autocast,
        pools_last_token=architecture.pools_last_token,
        pair_separator=pair_separator,
    )


def measure_again(name: str, recipe: Recipe, output_dir: Path = store.FOLDER, share_texts: bool = False) -> Path:
    """Evaluate the adapter `output_dir/name`, which has results, with the packages installed now; return its folder.

    Its results, plots and card are replaced together or not at all. Raises ArenaError, also if the data are not those
    that the adapter was evaluated on.
    """
    folder = output_dir / name
    adapter = store.read(folder, bases.find(recipe.base_model))
    found = adapter.results
    splits = load.load_splits(recipe)
    if not evaluation.is_of(found, splits):
        raise DataError(
            f"{recipe.dataset} is not the data {name} was measured on ({found.dataset.id}, "
            f"{found.dataset.revision[:12]}): name the unchanged file or folder with --dataset, or give another data set "
            "another name."
        )
    engine = new_engine(recipe)
    engine.add(adapter)
    measures = _measures(splits)
    baseline = measures.measure_baseline(engine, splits, recipe)
    packages = machine.environment()["packages"]
    found.evaluation = measures.evaluate(engine, name, splits, baseline, share_texts)
    found.evaluation.baselines = baselines.measure(engine, splits, recipe)
    baselines.print_scores(found.evaluation.baselines, len(splits.train))
    found.evaluation.measured_at = utc_now()
    if packages != found.environment.get("packages"):
        found.evaluation.packages = packages
    found.dataset.source = splits.facts.source
    found.megabytes = adapter.size / 1e6
    replace_results(found, folder)
    return folder


def replace_results(found: results.Results, folder: Path) -> None:
    """Replace the results, plots and card of an adapter folder together or not at all. Raises StorageError."""
    with explain_disk_errors("measure again"), store.saving(folder.name, folder.parent) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        found.write(staging)
        cards.write(found, staging)


def validate(job: Job) -> results.Training:
    """Train and score on the validation split only, without saving the model. Raises ArenaError."""
    arguments.check_machine(job.recipe)
    _, training = fit(dataclasses.replace(job, curve_points=0))
    return training


def fit(job: Job) -> tuple[PreTrainedModel | PeftModel, results.Training]:
    """Train, and return the model and what was recorded.

    If memory runs out, training continues from the last checkpoint with half as many rows per pass. Raises
    TrainingError if that is impossible.
    """
    while True:
        try:
            return _fit_once(job)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if job.rows_per_pass % 2 or machine.world_size() > 1:
                raise TrainingError(
                    f"Memory is too short for {job.rows_per_pass} rows at a time: lower --train-max-length or "
                    "--batch-size, or use --method qlora; --resume continues from the last checkpoint."
                ) from error
        # After the except block, since the error refers to the model.
        machine.release_memory()
        torch.cuda.empty_cache()
        job = dataclasses.replace(job, resume=True, accumulation_steps=2 * job.accumulation_steps)
        print(
            f"memory is short: {job.rows_per_pass} rows at a time, {job.accumulation_steps} times a step, from the last "
            "checkpoint on",
            flush=True,
        )


def _fit_once(job: Job) -> tuple[PreTrainedModel | PeftModel, results.Training]:
    checkpoint = checkpoints.last_checkpoint(job.folder) if job.resume else None
    network, total_params = trainable.build(job.recipe, len(job.splits.labels))
    network.config.problem_type = tasks.TASKS[job.splits.task].problem_type  # selects the loss
    if job.splits.task == tasks.MULTI_LABEL:
        trainable.start_at_base_rates(network, job.splits.targets(job.splits.train.labels))
    trainer_arguments = _trainer_arguments(job, network)
    method = methods.find(job.recipe.method)
    method_callbacks = [method.callback(network, checkpoint)] if method.callback else []
    compute_name = compute.name_of(arguments.compute_type(job.recipe))
    stop = StopOnSigterm()
    with machine.peak_memory() as peak:
        runner = trainer.ArenaTrainer(**trainer_arguments, callbacks=[stop, *method_callbacks, *job.callbacks])
        learning_curve = curve.LearningCurve(runner, job.curve_points) if job.curve_points else None
        progress = Progress(runner, checkpoint, peak, compute_name, learning_curve)
        runner.add_callback(progress)
        keep_best = _keep_best(job, network)
        if keep_best:
            runner.add_callback(keep_best)
        if machine.world_size() > 1:
            _check_processes_agree(runner, job, checkpoint)
        try:
            runner.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if stop.received:
                raise Terminated
            if not history.is_evaluated_at(runner.state.log_history, runner.state.global_step):
                runner.evaluate()  # the run was resumed from its last step, whose evaluation had not finished
        finally:
            stop.close()
            progress.close()
    if machine.world_size() > 1:
        peaks = runner.accelerator.gather(torch.tensor([peak.mb], device=runner.args.device))
        peak.mb = float(peaks.sum())
    trainable_params = trainable.count_trainable(network)
    log = runner.state.log_history
    best_epoch = keep_best.restore(log) if keep_best else None
    rows_seen = len(runner.train_dataset) * min(job.recipe.epochs, runner.state.epoch)  # fewer if it stopped early
    return network, results.Training(
        trainable_params=trainable_params,
        total_params=total_params,
        trainable_percent=100 * trainable_params / total_params,
        seconds=progress.seconds,
        samples_per_second=rows_seen / progress.seconds,
        peak_memory_mb=peak.mb,
        device=machine.device_name(),
        best_epoch=best_epoch,
        compute=compute_name,
        stages=progress.stages if len(progress.stages) > 1 else [],
        epochs=history.epochs(log),
        losses=history.logged(log, "loss"),
        validation_curve=curve.points(log),
        learning_rates=history.logged(log, "learning_rate"),
        memory_mb=history.logged(log, "memory_mb"),
        **machine.emissions(job.folder / machine.EMISSIONS, progress.seconds),
    )


def _keep_best(job: Job, network: PreTrainedModel | PeftModel) -> selection.KeepBest | None:
    recipe = job.recipe
    if recipe.metric is None:
        return None
    return selection.KeepBest(network, job.folder, recipe.metric, recipe.patience)


def _trainer_arguments(job: Job, network: PreTrainedModel | PeftModel) -> dict:
    """Return the Trainer's arguments except its callbacks; a method that needs to sees training rows first."""
    recipe = job.recipe
    tokenizer = loading.load_tokenizer(bases.find(recipe.base_model))
    positions = loading.position_limit(network) - servable.virtual_tokens(network)
    most_tokens = min(positions, int(settings.get("ARENA_MAX_WINDOW")))
    train_length = min(recipe.train_max_length or recipe.max_length, most_tokens)
    splits = job.splits
    reads_types = templates.reads_token_types(network, tokenizer)
    targets = splits.targets(splits.train.labels)
    train_rows = trainer.EncodedRows(tokenizer, splits.train, train_length, targets, reads_types)
    validation_length = min(recipe.max_length, most_tokens)
    validation = Rows.from_frame(splits.validation)
    targets = splits.targets(validation.labels)
    validation_rows = trainer.EncodedRows(tokenizer, validation, validation_length, targets, reads_types)
    collate = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=16)
    schedule = arguments.Schedule(len(train_rows), job.report_to, job.accumulation_steps, job.evaluations_per_epoch)
    training_arguments = arguments.build(recipe, job.folder, schedule)
    method = methods.find(recipe.method)
    if method.initialise:
        method.initialise(network, trainer.sample_batches(train_rows, collate, recipe.batch_size, recipe.seed))
    optimizer = None
    if recipe.lr_ratio:
        optimizer = procedures.loraplus_optimizer(network, training_arguments, recipe.lr_ratio)
    return {
        "model": network,
        "args": training_arguments,
        "data_collator": collate,
        "train_dataset": train_rows,
        "eval_dataset": validation_rows,
        "optimizers": (optimizer, None),
        "task": splits.task,
        "class_weights": balance.class_weights(recipe, splits),
    }


def _check_processes_agree(runner: trainer.ArenaTrainer, job: Job, checkpoint: Path | None) -> None:
    """Raise RecipeError if the processes start from different steps or compute in different types.

    Their steps differ if their machines do not share the folder.
    """
    step = checkpoints.step_of(checkpoint) if checkpoint else 0
    bytes_per_number = arguments.compute_type(job.recipe).itemsize
    mine = torch.tensor([[step, bytes_per_number]], device=runner.args.device)
    steps, sizes = runner.accelerator.gather(mine).T.tolist()
    problem = None
    if len(set(sizes)) > 1:
        problem = "The processes' machines are fastest in different types: add --precision fp32 or bf16."
    elif len(set(steps)) > 1:
        problem = (
            f"The processes see different checkpoints in {job.folder} (steps {steps}): start them in one folder that "
            "all machines share."
        )
    if problem:
        raise RecipeError(problem)


def _measures(splits: load.Splits):
    """Return the module that measures adapters of the splits' task."""
    return evaluation if splits.task == tasks.SINGLE_LABEL else task_evaluation


def new_engine(recipe: Recipe) -> Engine:
    """Return an engine that computes in the type of the training; after fp16, in this machine's faster type."""
    dtype = arguments.compute_type(recipe)
    return Engine(bases.find(recipe.base_model), dtype=None if dtype == torch.float16 else dtype)


def _pair_separator(base: bases.Base, splits: load.Splits) -> str | None:
    """Return what is put between the texts of pairs if the base's tokenizer has no template that does."""
    if not splits.facts.has_pairs:
        return None
    return templates.pair_frame(loading.load_tokenizer(base)).separator


def without_paths(recipe: Recipe) -> dict:
    """Return the recipe's local paths shortened to file names, for results, which are published."""
    names = {}
    for field in ("dataset", "base_model"):
        path = Path(getattr(recipe, field))
        if path.exists():
            names[field] = path.resolve().name
    return names


def utc_now() -> str:
    """Return the time in UTC, to the second, as results record it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
