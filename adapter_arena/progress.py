"""`progress.jsonl` in the folder of a training: its phase, steps, losses and scores, for programs that show them."""

import json
import time
from pathlib import Path

FILE = "progress.jsonl"
"""One JSON object a line, each with `time` in seconds since 1970 and any of `phase`, `step`, `steps`, `epoch`, `loss`,
`validation_loss` and `validation_score`."""


def append(folder: Path, **values: float | str) -> None:
    """Append a line to the folder's file. Raises OSError."""
    line = json.dumps({"time": round(time.time(), 2)} | values)
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read(folder: Path) -> list[dict]:
    """Return the complete lines of the folder's file, in order; none if there is no file."""
    try:
        content = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:  # the folder is deleted as soon as its training is complete
        return []
    complete, _, _ = content.rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]
