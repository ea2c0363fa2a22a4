"""Choose hyper-parameters: Optuna over a recipe's fields, scored on the validation split, never on the test split.

Any number of processes and machines may work on one sweep: they share its storage, a file or a
database. Started again, a sweep goes on where it was; trials of processes that died are run again.
"""

import csv
import dataclasses
import itertools
import json
import math
import os
import shutil
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import optuna
import psutil
import sqlalchemy
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from transformers import TrainerCallback

from adapter_arena.data import load
from adapter_arena.errors import RecipeError, TrainingError, unknown
from adapter_arena.files import explain_disk_errors
from adapter_arena.recipe import DEFAULTS, FIELDS, Recipe, value_type, with_current_names
from adapter_arena.train import recipes, runs, training

FOLDER = Path("sweeps")
FIXED = {"name", "dataset", "data_seed", "text_column", "label_column", "label_names", "streaming", "n_train"}
FIXED |= {"n_validation", "n_test"}
"""What decides which rows there are, which are read once for all trials."""
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*_DONE, TrialState.RUNNING)
_SCORES = 4
"""Times that a trial is scored at least, so that a hopeless one can be told early."""


@dataclass(frozen=True)
class Plan:
    """What a sweep is over: a recipe, and for each field that varies the values or the range it may take."""

    name: str
    fields: dict
    """What the user set, as `recipes.resolve` takes it."""
    method: str | None
    recipe: str | None
    space: dict[str, BaseDistribution]
    trials: int | None
    """Most trials; None for every combination of the values."""

    def resolve(self, values: dict) -> Recipe:
        """The recipe of one trial. Raises RecipeError."""
        values = dict(values)
        method = values.pop("method", self.method)
        return recipes.resolve(method, self.recipe, **(self.fields | values | {"name": self.name}))[0]

    @property
    def combinations(self) -> list[dict] | None:
        """Every combination of the values; None when a range is among them."""
        if not all(isinstance(among, CategoricalDistribution) for among in self.space.values()):
            return None
        return [
            dict(zip(self.space, values)) for values in itertools.product(*(d.choices for d in self.space.values()))
        ]


def plan(name: str, fields: dict, method: str | None, recipe: str | None, space: list[str], trials: int | None) -> Plan:
    """The plan that `--sweep` asks for. Raises RecipeError, also when a combination makes no valid recipe."""
    found = Plan(name, fields, method, recipe, dict(map(_dimension, space)), trials)
    if trials is not None and trials < 1:
        raise RecipeError(f"--trials must be at least 1, not {trials}.")
    if found.combinations is None and trials is None:
        raise RecipeError("A range has no end of values: say how many to try, --trials 20 for example.")
    ends = [(d.low, d.high) if not isinstance(d, CategoricalDistribution) else d.choices for d in found.space.values()]
    for values in itertools.product(*ends):
        found.resolve(dict(zip(found.space, values)))
    return found


def _dimension(text: str) -> tuple[str, BaseDistribution]:
    """`learning_rate=1e-3,5e-4` -> values; `learning_rate=1e-5..1e-2` -> a range, logarithmic over a factor of ten."""
    name, equals, values = text.partition("=")
    name = {"lr": "learning_rate"}.get(name.strip().replace("-", "_"), name.strip().replace("-", "_"))
    if not equals or not values:
        raise RecipeError(f"--sweep {text} must read field=value,value or field=low..high: learning_rate=1e-3,5e-4.")
    if name not in FIELDS:
        raise RecipeError(unknown("field", name, sorted(set(FIELDS) - FIXED)))
    if name in FIXED:
        raise RecipeError(
            f"{name} decides which rows there are, so a sweep cannot vary it: set it for all with its flag."
        )
    low, dots, high = values.partition("..")
    if not dots:
        return name, CategoricalDistribution(list(dict.fromkeys(_value(name, v) for v in values.split(","))))
    low, high = _value(name, low), _value(name, high)
    if isinstance(low, str) or not low < high:
        raise RecipeError(f"--sweep {text}: a range goes from a number to a greater one.")
    is_log = low > 0 and high / low >= 10
    make = IntDistribution if isinstance(low, int) else FloatDistribution
    return name, make(low, high, log=is_log)


def _value(name: str, text: str) -> int | float | str:
    """A field's value as its type wants it."""
    kind = value_type(name)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise RecipeError(f"--sweep {name}={text}: {text!r} is no {'whole ' * (kind is int)}number.") from error
    return text.strip()


def run(plan: Plan, storage: str | None = None) -> Path:
    """Work on the sweep until its trials are done; returns the recipe file of the best.

    `storage` is a file or a database URL; None for `sweeps/<name>/journal.log`. Raises ArenaError.
    """
    with explain_disk_errors("start the same sweep again"):
        return _run(plan, storage, FOLDER / plan.name)


def _run(plan: Plan, storage: str | None, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(plan, storage or str(folder / "journal.log"))
    splits, durations = load.load_splits(plan.resolve(_first(plan))), []
    while (trial := _ask(study, plan)) is not None:
        values, start = trial.params, time.perf_counter()
        print(f"trial {trial.number}: {_written(values)}", flush=True)
        try:
            _try(trial, plan.resolve(values), splits)
        except BaseException:  # raised again; until it is told, other processes would wait for this trial
            study.tell(trial, state=TrialState.FAIL)
            raise
        durations.append(time.perf_counter() - start)
        _say(study, plan, trial.number, durations)
    return _report(study, plan, folder)


def _study(plan: Plan, where: str) -> optuna.Study:
    """The sweep in its storage, made when it is new. Raises RecipeError when that holds another sweep."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if "://" in where:
            storage = optuna.storages.RDBStorage(where)
        else:
            Path(where).parent.mkdir(parents=True, exist_ok=True)
            # This lock holds on network file systems too.
            lock = optuna.storages.journal.JournalFileOpenLock(where)
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(where, lock_obj=lock))
        study = optuna.create_study(
            storage=storage,
            study_name=plan.name,
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(constant_liar=True, seed=None if plan.combinations is None else 0),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
        )
    except (OSError, ImportError, ValueError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise RecipeError(
            f"Storage {where.split('@')[-1]} cannot be used: {' '.join(str(error).split())[:160]}; name a file or a "
            "database URL (sqlite:///sweep.db, postgresql://user@host/db)."
        ) from error
    mine = {"recipe": _identity(plan), "space": {k: str(v) for k, v in plan.space.items()}}
    for key, value in mine.items():
        there = study.user_attrs.get(key)
        if there is None:
            study.set_user_attr(key, value)
            continue
        # What an older version did not know had its default.
        there = {k: DEFAULTS.get(k) for k in value if k in FIELDS} | with_current_names(there)
        if there != value:
            changed = sorted(k for k in {*there, *value} if there.get(k) != value.get(k))
            instead = "" if "://" in where else f", or delete {where}"
            raise RecipeError(
                f"Sweep {plan.name} was begun with another {', '.join(changed)}: name another --name{instead}."
            )
    return study


def _identity(plan: Plan) -> dict:
    """The recipe apart from what varies, as JSON gives it back."""
    fixed = dataclasses.asdict(plan.resolve(_first(plan)))
    fixed["method"] = plan.method
    return json.loads(json.dumps({key: value for key, value in fixed.items() if key not in plan.space}))


def _first(plan: Plan) -> dict:
    return {name: d.choices[0] if isinstance(d, CategoricalDistribution) else d.low for name, d in plan.space.items()}


def _ask(study: optuna.Study, plan: Plan) -> optuna.Trial | None:
    """The next trial for this process; None when all are done or in other hands."""
    while True:
        trials = _living(study)
        taken = [t for t in trials if t.state in _TAKEN]
        if plan.trials is not None and len(taken) >= plan.trials:
            return None
        if (combinations := plan.combinations) is not None:
            held = [_params(t) for t in taken]
            left = [values for values in combinations if values not in held]
            if not left:
                return None
            study.enqueue_trial(left[0], user_attrs={"worker": _worker()})
        trial = study.ask(plan.space)
        trial.set_user_attr("worker", _worker())
        twins = [t for t in study.get_trials(deepcopy=False) if t.state in _TAKEN and t.number < trial.number]
        if combinations is None or all(_params(t) != trial.params for t in twins):
            return trial
        study.tell(trial, state=TrialState.FAIL)  # another process took the same values a moment before


def _living(study: optuna.Study) -> list[FrozenTrial]:
    """All trials; those whose process is dead are given up first."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if worker and worker["host"] == socket.gethostname() and not _is_alive(worker):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    return study.get_trials(deepcopy=False)


def _worker() -> dict:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_alive(worker: dict) -> bool:
    try:
        return abs(psutil.Process(worker["pid"]).create_time() - worker["started"]) < 1
    except psutil.NoSuchProcess:
        return False


def _params(trial: FrozenTrial) -> dict:
    return trial.system_attrs.get("fixed_params") or trial.params


class _Watch(TrainerCallback):
    """Reports each validation score to the trial and ends it where others were better by then."""

    def __init__(self, trial: optuna.Trial):
        self._trial, self._scored = trial, 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self._scored += 1
        self._trial.report(metrics["eval_accuracy"], self._scored)
        if state.global_step < state.max_steps and self._trial.should_prune():
            raise optuna.TrialPruned


def _try(trial: optuna.Trial, recipe: Recipe, splits: load.Splits) -> None:
    """Train and score one trial, and tell the study."""
    study, folder = trial.study, runs.FOLDER / f"{recipe.name}-trial-{trial.number}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        facts = training.validate(recipe, splits, folder, [_Watch(trial)], math.ceil(_SCORES / recipe.epochs))
        last = facts.epochs[-1]
        for key in ("validation_loss", "validation_f1"):
            trial.set_user_attr(key, getattr(last, key))
        trial.set_user_attr("seconds", facts.seconds)
        study.tell(trial, last.validation_accuracy)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:  # a rate that is too high is an answer too
        print(f"trial {trial.number} cannot be trained: {error}", flush=True)
        study.tell(trial, state=TrialState.PRUNED)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def best(study: optuna.Study) -> FrozenTrial:
    """The finished trial of highest validation accuracy, of equal ones that of lower loss. Raises RecipeError."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not finished:
        raise RecipeError(
            "No trial of the sweep has a score: another process holds them, or none could be trained; wait, or try "
            "lower learning rates under another --name."
        )
    return max(finished, key=lambda t: (t.value, -t.user_attrs["validation_loss"]))


def _say(study: optuna.Study, plan: Plan, number: int, durations: list[float]) -> None:
    trials = study.get_trials(deepcopy=False)
    done = sum(t.state in _DONE for t in trials)
    running = sum(t.state == TrialState.RUNNING for t in trials)
    wanted = min(plan.trials or math.inf, len(plan.combinations) if plan.combinations is not None else math.inf)
    mine = trials[number]
    score = "pruned" if mine.state == TrialState.PRUNED else f"validation accuracy {mine.value:.4f}"
    top = best(study) if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else None
    so_far = f"best {top.value:.4f} with {_written(top.params)}" if top else "none has a score yet"
    # What others hold now is done beside what is left here.
    left = timedelta(seconds=round((wanted - done) / (1 + running) * sum(durations) / len(durations)))
    print(
        f"{done}/{wanted} trials; {_written(mine.params)}: {score}; {so_far}; about {left} left",
        flush=True,
    )


def _written(values: dict) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _report(study: optuna.Study, plan: Plan, folder: Path) -> Path:
    """Print the table of trials, write it as trials.csv and the best recipe as <name>.yaml; returns that file."""
    names = [*plan.space, "state", "validation_accuracy", "validation_loss", "seconds"]
    rows = [
        [
            *(_params(t).get(name) for name in plan.space),
            t.state.name.lower(),
            t.value,
            *(t.user_attrs.get(k) for k in names[-2:]),
        ]
        for t in study.get_trials(deepcopy=False)
        if t.state in _DONE
    ]
    rows.sort(key=lambda row: (row[-4] != "complete", -(row[-3] or 0), row[-2] or 0))
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    shown = [[f"{v:.4g}" if isinstance(v, float) else str(v if v is not None else "") for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *shown)]
    for row in (names, *shown):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))
    top = best(study)
    # Every field: what it left out would be filled in by the method's own defaults.
    chosen = dataclasses.asdict(plan.resolve(_params(top)))
    about = f"best of {len(rows)} trials on validation, accuracy {top.value:.4f}: {_written(_params(top))}"
    path = folder / f"{plan.name}.yaml"
    path.write_text(
        yaml.safe_dump({"description": about} | chosen, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    return path
