"""Former name of `sweep`."""

from adapter_arena.train.sweep import Plan, parse_space
from adapter_arena.train.sweep import run_sweep as run  # noqa: F401 # alias


def plan(name, fields, method, recipe, space, trials):  # alias
    return Plan(name, fields, method, recipe, parse_space(space), trials)
