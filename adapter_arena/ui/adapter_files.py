"""The sub-tab Files of Adapters: where an adapter comes from, and its files with their hashes."""

import functools
import hashlib
import html
from dataclasses import dataclass
from pathlib import Path

from adapter_arena.serve.entries import Entry
from adapter_arena.ui import fragments
from adapter_arena.ui.fragments import Column


@dataclass(frozen=True)
class File:
    """A file of an adapter folder."""

    name: str
    size: int
    """In bytes."""
    sha256: str


def render(entry: Entry) -> str:
    """Return the adapter's origin and its files; the origin alone before it is fetched."""
    facts = fragments.facts(_origin(entry))
    if entry.adapter is None:
        return facts
    try:
        files = _read_files(entry.adapter.folder)
    except OSError as error:
        reason = (
            f"The files of {entry.name} cannot be read ({error.strerror}). Restore its folder, then restart the app."
        )
        return facts + fragments.notice(reason, "error")
    return facts + fragments.table(files, _COLUMNS)


def _origin(entry: Entry) -> dict[str, str]:
    source = f"Hub, commit {entry.revision}" if entry.revision else "local folder"
    facts = {"Source": source, "Base model": entry.base_note}
    if entry.adapter and entry.adapter.notes:
        facts["Notes"] = "; ".join(entry.adapter.notes)
    if entry.results:
        facts["Trained"] = entry.results.created_at[:10]
        facts["Code"] = entry.results.environment.get("code_revision", "unknown")[:16]
        facts["Dataset"] = f"{entry.results.dataset.id} {entry.results.dataset.revision[:12]}"
        facts["SHA-256 of the base model"] = entry.results.base_model.sha256[:16]
    return facts


def _read_files(folder: Path) -> list[File]:
    files = []
    for path in sorted(folder.iterdir()):
        if path.is_file():
            status = path.stat()
            files.append(File(path.name, status.st_size, _sha256(path, status.st_mtime_ns, status.st_size)))
    return files


@functools.lru_cache(maxsize=1000)  # every visitor sees the same files, and a full fine-tune takes 0.1 s to hash
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_COLUMNS = [
    Column("File", lambda file: html.escape(file.name), lambda file: file.name, number=False, less_first=True),
    Column("kB", lambda file: f"{file.size / 1000:,.1f}", lambda file: file.size),
    Column("SHA-256", lambda file: f'<code title="{file.sha256}">{file.sha256[:12]}</code>', number=False),
]
