"""The app's settings: environment variables `ARENA_…`, with defaults and descriptions.

    python -m adapter_arena.settings > docs/settings.md

A variable is read each time it is needed, so that a process can change it while it runs.
"""

import functools
import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from adapter_arena.errors import SettingError, invalid_value, unknown

_PREFIX = "ARENA_"
_PER_MINUTE_ON_A_SPACE = 300
_TRAIN_MINUTES_ON_A_SPACE = 30
_TRAIN_ROWS_ON_A_SPACE = 5000


def _without_underscores(value: Any) -> Any:
    return value.replace("_", "") if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Limit = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_without_underscores)]
ComputeType = Annotated[Literal["auto", "bf16", "fp32"], BeforeValidator(_lower)]
Precision = Literal["nf4", "bf16", "fp32"]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_lower)]


def is_space() -> bool:
    """Return whether the app runs as a Hugging Face Space, where everybody may use it."""
    return bool(os.environ.get("SPACE_ID"))


def _requests_per_minute() -> float:
    return _PER_MINUTE_ON_A_SPACE if is_space() else 0


def _train_minutes() -> float:
    return _TRAIN_MINUTES_ON_A_SPACE if is_space() else 0


def _train_rows() -> float:
    return _TRAIN_ROWS_ON_A_SPACE if is_space() else 0


class Settings(BaseSettings):
    """All settings. The docstrings of the fields are their descriptions in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, use_attribute_docstrings=True)

    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id of a supported base model, or a local folder"""
    precision: Precision = "nf4"
    """Weights of the base model: `nf4` (4 bits), `bf16` (16 bits, or 32 if it computes in fp32) or `fp32`"""
    compute: ComputeType = "auto"
    """Compute type: `auto` (the faster one, measured at startup), `bf16` or `fp32`"""
    adapters: str = ""
    """Folders and Hub repos to serve in addition to `adapters/`, separated by commas"""
    namespace: str = ""
    """Hub user whose adapters are listed: those for the base model, and for others if `ARENA_MORE_BASES` allows them"""
    allow_loading: str = "all"
    """Adapters that visitors may load by id: `all`, `none`, or Hub users and repos separated by commas"""
    votes: str = ""
    """Hub dataset for the votes of blind duels; without one they stay in the cache folder"""
    cache: str = ""
    """Folder for quantised base models, rows of datasets and measured baselines; the user's cache folder by default"""
    max_window: Limit = 512
    """Maximum tokens of a text in one pass; a base model with fewer positions has its own limit"""
    max_characters: Limit = 2_000_000
    """Maximum characters of a text"""
    max_batch: Limit = 10_000
    """Maximum texts per `/predict_batch` request"""
    max_waiting: Limit = 20_000
    """Maximum texts waiting for a prediction; further requests are refused until there is room"""
    max_explain: Limit = 100_000
    """Maximum characters of a text to explain, by `/explain` and on the page"""
    max_queue: Limit = 1000
    """Maximum requests running and waiting; further requests are refused until there is room"""
    max_body_mb: Limit = 50
    """Maximum size of a request without uploads, in MB"""
    max_file_mb: Limit = 100
    """Maximum size of a file in Batch, in MB"""
    max_uploads_mb: Limit = 2000
    """Disk space for uploads and results, in MB; each is deleted after an hour"""
    tables_mb: Limit = 1000
    """Memory for tables open in Batch, in MB; the least recently used are evicted"""
    max_rows: Limit = 100_000
    """Maximum rows of a file in Batch"""
    max_per_minute: Limit = Field(default_factory=_requests_per_minute)
    """Request limit per visitor and minute; 0 for no limit, the default outside a Space (300 on a Space)"""
    max_adapter_mb: Limit = 300
    """Maximum size of an adapter to download, in MB"""
    max_fetched: Limit = 50
    """Maximum adapters in the catalogue that visitors loaded from the Hub"""
    max_votes_mb: Limit = 100
    """Disk space for the votes of blind duels and the texts that visitors agreed to share, in MB"""
    more_bases: Limit = 1000
    """Memory for further base models that are loaded on demand, in MB; the least recently used is unloaded; 0 for none"""
    loaded_mb: Limit = 2000
    """Memory for loaded adapters, in MB; the least recently used are evicted"""
    hot_mb: Limit = 512
    """Memory for merged adapters and the base's dequantised weights, in MB (fp32 needs twice as much as bf16); 0 to disable merging"""

    train: Switch = "auto"
    """The tab Train: `on`, `off`, or `auto` (on, except on a Space)"""
    train_folder: str = "trainings"
    """Folder for what is trained on the page: uploaded files, checkpoints, adapters"""
    train_minutes: Limit = Field(default_factory=_train_minutes)
    """Maximum minutes of a training on the page; 0 for no limit, the default outside a Space (30 on a Space)"""
    train_rows: Limit = Field(default_factory=_train_rows)
    """Maximum training rows on the page; 0 for no limit, the default outside a Space (5,000 on a Space)"""
    train_waiting: Limit = 10
    """Maximum trainings on the page that wait or run; one runs at a time"""


NAMES = {_PREFIX + field.upper(): field for field in Settings.model_fields}
"""Environment variable -> field of Settings."""


def _load() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        field, _, reason = invalid_value(error).partition(" ")
        raise SettingError(f"{_PREFIX}{field.upper()} {reason}: correct it or unset it.") from error


@functools.lru_cache(maxsize=1024)  # the engine reads a limit for every text, and reading all settings takes 2 ms
def _value(name: str, text: str | None, space: str | None) -> Any:
    return getattr(_load(), NAMES[name])


def get(name: str) -> Any:
    """Return the value of the environment variable `name`, or its default. Raises SettingError if one is invalid."""
    return _value(name, os.environ.get(name), os.environ.get("SPACE_ID"))


def check() -> None:
    """Raise SettingError for the first variable that is invalid or unknown."""
    _load()
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in NAMES:
            raise SettingError(unknown("setting", name, NAMES))


def document() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "The app reads its settings from environment variables and reports an invalid value at startup. Gradio's own"
        " variables (`GRADIO_SERVER_PORT`, …) and those of the Hub client (`HF_TOKEN`, `HF_HOME`, …) apply too.",
        "1 MB is 10^6 bytes.",
        "",
        "| variable | default | meaning |",
        "|---|---:|---|",
    ]
    for name, field in NAMES.items():
        info = Settings.model_fields[field]
        default = 0 if info.default_factory else info.default
        shown = f"{default:,}" if info.annotation is float else default and f"`{default}`"
        lines.append(f"| `{name}` | {shown} | {info.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
