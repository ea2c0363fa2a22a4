"""Choose hyper-parameters: trials over fields of a recipe, scored on the validation split, never on the test split.

Optuna draws the trials and keeps them in a database. Any number of processes may work on one sweep by sharing it. A
sweep that is started again continues, and trials of processes that died are repeated.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import filelock
import optuna
import pandas
import sqlalchemy
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from transformers import TrainerCallback

from adapter_arena import machine, tasks
from adapter_arena.data import load, summary
from adapter_arena.errors import RecipeError, StorageError, TrainingError, one_line, unknown
from adapter_arena.files import explain_disk_errors
from adapter_arena.recipe import FIELDS, Recipe, value_type
from adapter_arena.train import checkpoints, recipes, run

FOLDER = Path("sweeps")
FIXED = {"name", "dataset", "data_seed", "text_column", "label_column", "label_names", "streaming"}
FIXED |= {"n_train", "n_validation", "n_test", "text_pair_column", "task"}
"""Fields that decide which rows there are. The rows are loaded once for all trials."""
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_DATABASE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError)
_LEAST_EVALUATIONS = 4
"""Least number of evaluations of a trial: with fewer, hopeless trials are pruned too late."""
_HEARTBEAT_SECONDS = 20
_GRACE_SECONDS = 60
"""A trial without a heartbeat for this long is repeated: its process has died."""


@dataclass(frozen=True)
class Plan:
    """A recipe, and for each field that varies the values or the range of its values.

    Raises RecipeError if one of their combinations is not a valid recipe.
    """

    name: str
    fields: dict
    """Fields that the user set, for `recipes.resolve`."""
    method: str | None
    recipe: str | None
    space: dict[str, BaseDistribution]
    trials: int | None = None
    """Most trials; None for every combination of the values."""

    def __post_init__(self):
        problem = None
        if self.trials is None and not self.is_grid:
            problem = "A range has no last value: set the number of trials, for example --trials 20."
        elif self.trials is not None and self.trials < 1:
            problem = f"--trials must be at least 1, not {self.trials}."
        elif machine.world_size() > 1:
            problem = "The processes of a sweep are started one by one and share its --storage: leave the launcher out."
        if problem:
            raise RecipeError(problem)
        list(self.extreme_recipes())  # raises if one of them is not valid

    def resolve(self, values: dict) -> Recipe:
        """Return the recipe of the trial with these values. Raises RecipeError."""
        others = dict(values)
        method = others.pop("method", self.method)
        fields = self.fields | others | {"name": self.name}
        recipe, _ = recipes.resolve(method, self.recipe, **fields)
        return recipe

    @property
    def is_grid(self) -> bool:
        """Whether every field has a list of values, not a range."""
        return all(isinstance(distribution, CategoricalDistribution) for distribution in self.space.values())

    @property
    def n_trials(self) -> int:
        """Number of trials of the sweep."""
        if not self.is_grid:
            return self.trials
        combinations = math.prod(len(distribution.choices) for distribution in self.space.values())
        return min(self.trials or combinations, combinations)

    @property
    def first_recipe(self) -> Recipe:
        """The recipe with the first value of each field."""
        return next(self.extreme_recipes())

    def extreme_recipes(self) -> Iterator[Recipe]:
        """Yield the recipe of each combination of the values, and of the ends of ranges. Raises RecipeError."""
        extremes = [_extremes(distribution) for distribution in self.space.values()]
        for values in itertools.product(*extremes):
            yield self.resolve(dict(zip(self.space, values)))


def _extremes(distribution: BaseDistribution) -> tuple:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high


def parse_space(arguments: list[str]) -> dict[str, BaseDistribution]:
    """Return the values or the range of each field in `--sweep`'s arguments. Raises RecipeError.

    `learning_rate=1e-3,5e-4` is a list of values, `learning_rate=1e-5..1e-2` a range, which is logarithmic if its ends
    are at least a factor of ten apart.
    """
    space = {}
    for argument in arguments:
        field, _, values = argument.partition("=")
        field = field.strip().replace("-", "_")
        if field == "lr":
            field = "learning_rate"
        problem = _problem(argument, field, values)
        if problem:
            raise RecipeError(problem)
        if ".." in values:
            space[field] = _parse_range(field, values)
        else:
            choices = [_parse_value(field, value) for value in values.split(",")]
            space[field] = CategoricalDistribution(list(dict.fromkeys(choices)))
    return space


def _problem(argument: str, field: str, values: str) -> str | None:
    """Return why a sweep cannot vary the field; None if it can."""
    if not values:
        return f"--sweep {argument} must be field=value,value or field=low..high, for example learning_rate=1e-3,5e-4."
    if field not in FIELDS:
        return unknown("field", field, sorted(set(FIELDS) - FIXED))
    if field in FIXED:
        return f"{field} decides which rows there are, so a sweep cannot vary it: set it for all trials with its flag."
    return None


def _parse_range(field: str, text: str) -> BaseDistribution:
    low_text, _, high_text = text.partition("..")
    low = _parse_value(field, low_text)
    high = _parse_value(field, high_text)
    if isinstance(low, str) or isinstance(high, str) or not low < high:
        raise RecipeError(f"--sweep {field}={text}: a range goes from a number to a greater one.")
    is_logarithmic = low > 0 and high / low >= 10
    kind = IntDistribution if isinstance(low, int) else FloatDistribution
    return kind(low, high, log=is_logarithmic)


def _parse_value(field: str, text: str) -> int | float | str:
    """Return the number that the text means, or the text itself, which the recipe refuses in a field of numbers."""
    text = text.strip()
    kind = value_type(field)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def run_sweep(plan: Plan, storage: str | None = None) -> Path:
    """Work on the sweep until no trial is left for this process; return the file with the best recipe.

    `storage` is a database URL, or the path of an SQLite file; None for `sweeps/<name>/sweep.db`. Raises ArenaError.
    """
    folder = FOLDER / plan.name
    where = storage or str(folder / "sweep.db")
    with explain_disk_errors("start the same sweep again"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
        folder.mkdir(parents=True, exist_ok=True)
        study = open_study(plan, where)
        splits = load.load_splits(plan.first_recipe)
        for recipe in plan.extreme_recipes():
            run.check_task(recipe, splits)
        print("\n".join(summary.lines(splits)), flush=True)
        worker = _Worker(plan, splits)
        try:
            while has_trial_left(study, plan):
                study.optimize(worker.run_trial, n_trials=1, callbacks=[worker.print_progress])
        except _DATABASE_ERRORS as error:
            raise StorageError(
                f"Storage {_without_password(where)} failed: {one_line(error)}; start the same sweep again."
            ) from error
        return _write_report(study, plan, folder, tasks.TASKS[splits.task].objective)


def open_study(plan: Plan, storage: str) -> optuna.Study:
    """Return the sweep in the storage, created if it is new. Raises RecipeError if that contains another sweep."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if plan.is_grid:
        choices = {name: distribution.choices for name, distribution in plan.space.items()}
        sampler = optuna.samplers.GridSampler(choices, seed=0)  # the same order in all processes
    else:
        sampler = optuna.samplers.TPESampler(constant_liar=True)  # allows for trials that others are running
    try:
        study = optuna.create_study(
            storage=_connect(storage),
            study_name=plan.name,
            load_if_exists=True,
            direction="maximize",
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
        )
    except (OSError, ImportError, ValueError, *_DATABASE_ERRORS) as error:
        raise RecipeError(
            f"Storage {_without_password(storage)} cannot be used: {one_line(error)[:160]}; use a new file or a "
            "database URL (sqlite:///sweep.db, postgresql://user@host/db)."
        ) from error
    _check_same_sweep(study, plan, storage)
    return study


def _connect(storage: str) -> RDBStorage:
    url = storage
    engine_arguments: dict = {}
    one_by_one = contextlib.nullcontext()
    if "://" not in storage:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{storage}"
        one_by_one = filelock.FileLock(f"{storage}.lock")  # Optuna fails if two processes create the tables
    if url.startswith("sqlite:"):
        engine_arguments = {"connect_args": {"timeout": 60}}  # seconds to wait while another process writes
    with one_by_one:
        return RDBStorage(
            url,
            engine_kwargs=engine_arguments,
            heartbeat_interval=_HEARTBEAT_SECONDS,
            grace_period=_GRACE_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


def _without_password(storage: str) -> str:
    return storage.split("@")[-1]


def _check_same_sweep(study: optuna.Study, plan: Plan, storage: str) -> None:
    """Record the plan in a new study. Raises RecipeError if the study was started with another plan."""
    space = {name: str(distribution) for name, distribution in plan.space.items()}
    current = {"recipe": _fixed_fields(plan), "space": space}
    for key, value in current.items():
        saved = study.user_attrs.get(key)
        if saved is None:
            study.set_user_attr(key, value)
            continue
        if saved != value:
            names = sorted({*saved, *value})
            changed = [name for name in names if saved.get(name) != value.get(name)]
            alternative = "" if "://" in storage else f", or delete {storage}"
            raise RecipeError(
                f"Sweep {plan.name} was started with another {', '.join(changed)}: use another --name{alternative}."
            )


def _fixed_fields(plan: Plan) -> dict:
    """Return the fields of the recipe that do not vary, as JSON returns them."""
    fields = dataclasses.asdict(plan.first_recipe) | {"method": plan.method}
    for name in plan.space:
        del fields[name]
    return json.loads(json.dumps(fields))


def has_trial_left(study: optuna.Study, plan: Plan) -> bool:
    """Return whether this process should run another trial.

    If all remaining trials are running in other processes, wait long enough to notice that one of these has died.
    """
    deadline = time.monotonic() + _GRACE_SECONDS + _HEARTBEAT_SECONDS
    while True:
        optuna.storages.fail_stale_trials(study)
        running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        done = len(study.get_trials(deepcopy=False, states=_DONE))
        if done + running < plan.n_trials:
            return True
        if running == 0 or time.monotonic() > deadline:
            return False
        time.sleep(0.5)


class _ReportToTrial(TrainerCallback):
    """Reports each validation score to the trial and stops it if earlier trials were better by then."""

    def __init__(self, trial: optuna.Trial, metric: tasks.Metric):
        self._trial = trial
        self._metric = metric
        self._evaluations = 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self._evaluations += 1
        self._trial.report(metrics[f"eval_{self._metric.name}"], self._evaluations)
        if state.global_step < state.max_steps and self._trial.should_prune():
            raise optuna.TrialPruned


class _Worker:
    """Runs trials of a sweep in this process."""

    def __init__(self, plan: Plan, splits: load.Splits):
        self._plan = plan
        self._splits = splits
        self._metric = tasks.TASKS[splits.task].objective
        self._seconds: list[float] = []
        self._start = 0.0

    def run_trial(self, trial: optuna.Trial) -> float:
        """Return the task's score on validation. Raises TrialPruned if the trial is hopeless or cannot be trained."""
        self._start = time.perf_counter()
        values = {name: _suggest(trial, name, distribution) for name, distribution in self._plan.space.items()}
        print(f"trial {trial.number}: {_format_values(values)}", flush=True)
        recipe = self._plan.resolve(values)
        folder = checkpoints.FOLDER / f"{recipe.name}-trial-{trial.number}"
        job = run.Job(
            recipe,
            self._splits,
            folder,
            callbacks=(_ReportToTrial(trial, self._metric),),
            evaluations_per_epoch=math.ceil(_LEAST_EVALUATIONS / recipe.epochs),
        )
        shutil.rmtree(folder, ignore_errors=True)
        try:
            training = run.validate(job)
        except TrainingError as error:  # too high a learning rate is a result as well
            print(f"trial {trial.number} cannot be trained: {error}", flush=True)
            raise optuna.TrialPruned from error
        except BaseException as error:
            if not isinstance(error, optuna.TrialPruned):
                _queue_again(trial)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        kept = training.kept_epoch
        trial.set_user_attr("validation_loss", kept.validation_loss)
        trial.set_user_attr("validation_f1", kept.validation_f1)
        trial.set_user_attr("seconds", training.seconds)
        scores = kept.validation_scores
        return kept.validation_accuracy if scores is None else scores[self._metric.name]

    def print_progress(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print the finished trial's score, the best one so far, and the time left."""
        self._seconds.append(time.perf_counter() - self._start)
        done = len(study.get_trials(deepcopy=False, states=_DONE))
        running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        score = (
            "pruned"
            if trial.state == TrialState.PRUNED
            else f"validation {self._metric.title.lower()} {trial.value:.4f}"
        )
        best_so_far = "none has a score yet"
        if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            best = best_trial(study)
            best_so_far = f"best {best.value:.4f} with {_format_values(best.params)}"
        mean_seconds = sum(self._seconds) / len(self._seconds)
        # The processes that are running trials now share the remaining ones with this process.
        left = timedelta(seconds=round((self._plan.n_trials - done) / (1 + running) * mean_seconds))
        print(
            f"{done}/{self._plan.n_trials} trials; {_format_values(trial.params)}: {score}; {best_so_far}; "
            f"about {left} left",
            flush=True,
        )


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float | str:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, log=distribution.log)


def _queue_again(trial: optuna.Trial) -> None:
    """Have the values of an interrupted trial tried again: the grid regards failed trials as done."""
    retry = RetryHeartbeatStaleTrialCallback()
    retry(trial.study, trial.study.trials[trial.number])


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Return the trial with the highest score on validation and, among equal ones, the lowest loss.

    Raises RecipeError if no trial has a score.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise RecipeError(
            "No trial of the sweep has a score: either other processes are still running them, or none could be "
            "trained; wait, or try lower learning rates under another --name."
        )
    return max(complete, key=lambda trial: (trial.value, -trial.user_attrs["validation_loss"]))


def _format_values(values: dict) -> str:
    parts = []
    for name, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else value
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _write_report(study: optuna.Study, plan: Plan, folder: Path, metric: tasks.Metric) -> Path:
    """Print the trials, write them to trials.csv and the best recipe to <name>.yaml; return the latter."""
    rows = []
    score = f"validation_{metric.name}"
    for trial in study.get_trials(deepcopy=False, states=_DONE):
        row = dict(trial.params)
        row["state"] = trial.state.name.lower()
        row[score] = trial.value
        row["validation_loss"] = trial.user_attrs.get("validation_loss")
        row["seconds"] = trial.user_attrs.get("seconds")
        rows.append(row)
    columns = [*plan.space, "state", score, "validation_loss", "seconds"]
    table = pandas.DataFrame(rows, columns=columns)
    table = table.sort_values(["state", score, "validation_loss"], ascending=[True, False, True])
    table.to_csv(folder / "trials.csv", index=False)
    print(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    best = best_trial(study)
    values = _format_values(best.params)
    description = f"best of {len(rows)} trials on validation, {metric.title.lower()} {best.value:.4f}: {values}"
    # With every field: the method's defaults would replace those that are missing.
    content = {"description": description} | dataclasses.asdict(plan.resolve(best.params))
    path = folder / f"{plan.name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
