"""What can be chosen for a training: methods and base models."""

from adapter_arena import settings, tasks
from adapter_arena.errors import RequestError
from adapter_arena.jobs.job import Choices
from adapter_arena.models import bases, methods
from adapter_arena.recipe import check_name

MAX_EPOCHS = 50
MAX_SEEDS = 5
MAX_NAME = 60
"""Characters of an adapter's name."""
METHODS: dict[str, str] = {method.title: name for name, method in methods.METHODS.items()}
"""Name of each method by its title."""
TITLES: dict[str, str] = {name: title for title, name in METHODS.items()}
"""Title of each method by its name."""


def base_models(own: str) -> list[str]:
    """Return the base models that are offered: the app's first, then the known ones."""
    return [own, *(name for name in bases.BASES if name != own)]


def check(choices: Choices, own_base: str) -> None:
    """Raise ArenaError for choices that cannot be trained, in words of the page."""
    problem = None
    if not choices.methods:
        problem = "Choose at least one method."
    elif not 1 <= choices.epochs <= MAX_EPOCHS:
        problem = f"Choose 1 to {MAX_EPOCHS} epochs."
    elif not 1 <= choices.seeds <= MAX_SEEDS:
        problem = f"Choose 1 to {MAX_SEEDS} seeds."
    elif len(choices.name) > MAX_NAME:
        problem = f"The name has over {MAX_NAME} characters: choose a shorter one."
    elif choices.rows is not None and choices.rows < 1:
        problem = "Choose 1 row or more, or leave the number of rows empty for all."
    elif settings.is_space() and choices.base_model not in base_models(own_base):
        problem = "Choose a base model of the list."
    elif choices.is_comparison and choices.task != tasks.SINGLE_LABEL:
        problem = "Several methods at once need one class for each row: choose one method."
    if problem:
        raise RequestError(problem)
    check_name(choices.name)
