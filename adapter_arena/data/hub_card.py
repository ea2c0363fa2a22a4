"""The configurations and splits that the README.md of a dataset on the Hub names, for a local copy of it."""

from pathlib import Path

from huggingface_hub import metadata_load

from adapter_arena.errors import DataError, one_line

Splits = dict[str, list[Path]]
"""The files of each split, in order."""


def configurations(folder: Path) -> dict[str, Splits]:
    """Return the splits of each configuration in README.md; those whose files are not there are left out.

    Raises DataError if the front matter cannot be parsed.
    """
    card = folder / "README.md"
    if not card.is_file():
        return {}
    try:
        content = metadata_load(card)
    except Exception as error:  # of YAML, decoding or values: the file is not ours
        raise DataError(
            f"README.md of {folder.name} cannot be parsed: {one_line(error)}. Correct or remove it."
        ) from error
    entries = (content or {}).get("configs")
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("data_files"):
            splits = _splits(folder / str(entry.get("data_dir") or "."), entry["data_files"])
            if any(splits.values()):
                found[str(entry.get("config_name", "default"))] = splits
    return found


def _splits(folder: Path, data_files: object) -> Splits:
    """Return the files by split; `data_files` is a list of splits with paths, or a path or list of paths for train."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    splits: Splits = {}
    for entry in entries:
        if isinstance(entry, str):
            split, patterns = "train", [entry]
        elif isinstance(entry, dict) and "path" in entry:
            split = str(entry.get("split", "train"))
            patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        else:
            continue
        files = splits.setdefault(split, [])
        for pattern in patterns:
            files += _matching(folder, str(pattern))
    return splits


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files within the folder that a pattern names, in order."""
    if ".." in pattern or pattern.startswith("/") or "://" in pattern:
        return []
    return sorted(path for path in folder.glob(pattern) if path.is_file())
