"""Everything that can be set by an environment variable `ARENA_…`: its default, and what it is for.

    python -m adapter_arena.settings     # the README's table

Gradio's own (GRADIO_SERVER_PORT, …) and the Hub client's (HF_TOKEN, HF_HOME, …) come beside them.
"""

import math
import os

from adapter_arena.errors import SettingError, unknown

TEXTS = {
    "ARENA_BASE_MODEL": "Hub id of a supported base model, or a local folder",
    "ARENA_PRECISION": "how the base is held: `nf4` (4 bits), `bf16` (16, or 32 where it computes in fp32) or `fp32`",
    "ARENA_COMPUTE": "the type it computes in: `auto` (the faster one, measured at the start), `bf16` or `fp32`",
    "ARENA_ADAPTERS": "folders and Hub repos to offer beside `adapters/`, separated by commas",
    "ARENA_NAMESPACE": "a Hub user whose adapters for the base are offered",
    "ARENA_ALLOW_LOADING": "adapters that visitors may load by id: `all`, `none`, or Hub users and repos separated by commas",
    "ARENA_VOTES": "a Hub dataset that keeps the votes of blind duels; they stay in the cache folder otherwise",
    "ARENA_CACHE": "where quantised bases, rows of datasets and measured baselines are kept",
}
CHOICES = {"ARENA_COMPUTE": ("auto", "bf16", "fp32")}
"""Values that a variable of TEXTS may have; the first is the default."""
NUMBERS: dict[str, tuple[int, str]] = {
    "ARENA_MAX_CHARACTERS": (2_000_000, "characters of a text"),
    "ARENA_MAX_BATCH": (10_000, "texts of one `/predict_batch`"),
    "ARENA_MAX_WAITING": (20_000, "texts that wait, then callers are told to come again"),
    "ARENA_MAX_EXPLAIN": (100_000, "characters of a text whose words are weighed, by `/explain` and on the page"),
    "ARENA_MAX_QUEUE": (1000, "calls under way and waiting, then callers are told to come again"),
    "ARENA_MAX_BODY_MB": (50, "megabytes of a request, uploads apart"),
    "ARENA_MAX_FILE_MB": (100, "megabytes of a file in Batch"),
    "ARENA_MAX_UPLOADS_MB": (2000, "megabytes of uploads and results on disk, each for an hour"),
    "ARENA_TABLES_MB": (1000, "megabytes of the tables in memory that pages of Batch work on; those used longest ago are let go"),
    "ARENA_MAX_ROWS": (100_000, "rows of a file in Batch"),
    "ARENA_MAX_PER_MINUTE": (0, "requests of one visitor in a minute; 0 for any number, which is the default off a Space (300 on one)"),
    "ARENA_MAX_ADAPTER_MB": (300, "megabytes of an adapter that is fetched"),
    "ARENA_MAX_FETCHED": (50, "adapters of the Hub that are in the catalogue because visitors loaded them"),
    "ARENA_MAX_VOTES_MB": (100, "megabytes of the votes of blind duels, and of the texts that visitors let them keep"),
    "ARENA_MORE_BASES": (1, "second 4-bit bases that are loaded on demand"),
    "ARENA_LOADED_MB": (2000, "megabytes of adapters in memory; those asked longest ago are let go beyond it"),
    "ARENA_HOT_MB": (512, "megabytes of merged copies of adapters in demand and of the base's dequantised weights, which take twice as much in fp32 as in bf16; 0 for none"),
}  # fmt: skip


def number(name: str) -> float:
    """The number that `name`, of NUMBERS, is set to, or its default. Raises SettingError."""
    value = os.environ.get(name, "").strip()
    if not value:
        on_space = name == "ARENA_MAX_PER_MINUTE" and os.environ.get("SPACE_ID")
        return 300 if on_space else NUMBERS[name][0]
    try:
        found = float(value.replace("_", ""))
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise SettingError(f"{name}={value[:40]!r} is not a number of 0 or more: set it to {NUMBERS[name][1]}.")
    return found


def choice(name: str) -> str:
    """Return the value of `name`, of CHOICES, or the first of its choices if it is not set. Raises SettingError."""
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return CHOICES[name][0]
    if value not in CHOICES[name]:
        raise SettingError(f"{name}={value[:40]!r} is not supported: set it to {' or '.join(CHOICES[name])}.")
    return value


def check() -> None:
    """Raise SettingError for the first variable whose value cannot be used, or that starts like ours and is none."""
    for name in NUMBERS:
        number(name)
    for name in CHOICES:
        choice(name)
    known = [*TEXTS, *NUMBERS]
    for name in os.environ:
        if name.startswith("ARENA_") and name not in known:
            raise SettingError(unknown("setting", name, known))


def table() -> str:
    """All of them, as the README has them."""
    rows = [f"| `{name}` | | {what} |" for name, what in TEXTS.items()]
    rows += [f"| `{name}` | {default:,} | {what} |" for name, (default, what) in NUMBERS.items()]
    return "\n".join(["| variable | default | |", "|---|---:|---|", *rows])


if __name__ == "__main__":
    print(table())
