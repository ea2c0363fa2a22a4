"""Which files of a folder belong to which split, for the layouts in which people keep datasets.

These are: files named after their split (`train.csv`, `dev.tsv`, `train-00000-of-00002.parquet`), in the folder or in
`data/`; a folder per split; folders that `datasets.save_to_disk` wrote; and a folder per configuration, as on the Hub.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from adapter_arena.data import hub_card
from adapter_arena.data.compressed import SUFFIXES as COMPRESSED
from adapter_arena.data.compressed import table_suffix
from adapter_arena.data.tables import TRAINING_SUFFIXES
from adapter_arena.errors import DataError, shortened_list, unknown

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
}
_PREFERRED = (".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".txt")
"""Formats in the order in which one is chosen, if a folder has the same file in several."""
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_DOCUMENTS = ("readme", "license", "licence")
_SHARD = re.compile(r"(?:[-_. ]*\(?\d+\)?|-\d+-of-\d+)(?:-[0-9a-f]{8,})?$")

Wanted = dict[str, str | None]
"""For each split, the name that the user gave for it."""


@dataclass
class Files:
    """The files of each split in the order in which they are read, and what is not used, one line each."""

    splits: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Return the split that the name of a file, folder or split belongs to, None if that is not clear."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    if not words:
        return None
    if words[0] in SPLIT_NAMES:
        return SPLIT_NAMES[words[0]]
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


def find(folder: Path, wanted: Wanted, config: str | None) -> Files:
    """Return the files of each split of a folder. Raises DataError."""
    described = hub_card.configurations(folder)
    if described:
        return _described(folder, described, wanted, config)
    return _by_names(folder, wanted, config)


def is_saved(path: Path) -> bool:
    """Return whether `datasets.save_to_disk` wrote the folder, as a dataset or as a dictionary of them."""
    return path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file())


# ---------------------------------------------------------------- folders whose README.md names the files


def _described(folder: Path, described: dict[str, hub_card.Splits], wanted: Wanted, config: str | None) -> Files:
    name = choose_config(folder.name, list(described), config)
    splits = described[name]
    available = [split for split, files in splits.items() if files]
    chosen = choose_splits(folder.name, available, wanted)
    found = Files({split: splits[named] for split, named in chosen.items()})
    if len(described) > 1:
        others = [other for other in described if other != name]
        found.notes.append(f"Configuration {name} of {folder.name} is used; not used: {shortened_list(others)}.")
    unused = [split for split in available if split not in chosen.values()]
    if unused:
        found.notes.append(f"Not used, other splits: {shortened_list(unused)}.")
    return found


def choose_config(dataset: str, names: list[str], wanted: str | None) -> str:
    """Return the configuration to use: the wanted one, the only one or the default. Raises DataError."""
    if wanted is not None and not names:
        raise DataError(f"{dataset} has no configurations: leave out --dataset-config {wanted}.")
    if wanted is not None and wanted not in names:
        raise DataError(unknown(f"configuration of {dataset}", wanted, names))
    if wanted is None and len(names) > 1 and "default" not in names:
        raise DataError(
            f"{dataset} has several configurations: {shortened_list(names)}. Choose one with --dataset-config."
        )
    if wanted is not None:
        return wanted
    return "default" if "default" in names else names[0]


def choose_splits(dataset: str, names: list[str], wanted: Wanted) -> Wanted:
    """Return the name of the split to use as train, validation and test, as far as there are any. Raises DataError."""
    chosen = {}
    for split in SPLITS:
        name = wanted.get(split)
        if name is not None:
            if name not in names:
                raise DataError(unknown(f"split of {dataset}", name, names))
            chosen[split] = name
    for split in SPLITS:
        candidates = [name for name in names if split_of(name) == split and name not in chosen.values()]
        exact = [name for name in candidates if name.lower() in SPLIT_NAMES]
        if split not in chosen and len(exact or candidates) == 1:
            chosen[split] = (exact or candidates)[0]
    if "train" not in chosen:
        raise DataError(f"{dataset} has no train split, only {shortened_list(names)}: choose one with --train-split.")
    return {split: chosen[split] for split in SPLITS if split in chosen}


# ---------------------------------------------------------------- other folders


@dataclass(frozen=True)
class _Candidate:
    """A table of a folder."""

    path: Path
    split: str | None
    names: frozenset[str]
    """Names by which the user may choose it, in lower case."""


def _by_names(folder: Path, wanted: Wanted, config: str | None) -> Files:
    tables, others = _tables_in(folder)
    configs = [path for path in others if path.is_dir() and _tables_in(path)[0]]
    if config is not None:
        names = [path.name for path in configs]
        return _by_names(folder / choose_config(folder.name, names, config), wanted, None)
    if not tables:
        if not configs:
            raise DataError(_no_tables(folder))
        name = choose_config(folder.name, [path.name for path in configs], None)
        found = _by_names(folder / name, wanted, None)
        found.notes.insert(0, f"The files are in {folder.name}/{name}.")
        return found
    tables, documents = _without_documents(tables)
    tables, same = _one_format_each(tables)
    found = Files(_choose_files(folder, tables, wanted))
    used = {candidate for files in found.splits.values() for candidate in files}
    if not any(candidate.split or wanted.get("train") for candidate in tables):
        found.notes.append(f"No file name of {folder.name} has a split: all are read as train.")
    unused = [candidate for candidate in tables if candidate.path not in used]
    found.notes += _unused(folder, "no split in the name", [table.path for table in unused if not table.split])
    found.notes += _unused(folder, "another split was chosen", [table.path for table in unused if table.split])
    found.notes += _unused(folder, "the same file in another format is read", same)
    found.notes += _unused(folder, "tables of another format are read", documents)
    found.notes += _unused(folder, "not a table", [path for path in others if path.is_file()])
    found.notes += _unused(folder, "a folder that is not named after a split", [p for p in others if p.is_dir()])
    return found


def _no_tables(folder: Path) -> str:
    for path in sorted(folder.iterdir()):
        classes = [child.name for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
        if split_of(path.name) and classes:
            return (
                f"{folder.name} has a folder per class ({shortened_list(classes)}), which is not supported: write a "
                "table with columns text and label, for example train.csv."
            )
    return f"Folder {folder} has no train file: it needs train.parquet (or .csv, .tsv, .jsonl, …)."


def _unused(folder: Path, reason: str, paths: Iterable[Path]) -> list[str]:
    names = [str(path.relative_to(folder)) for path in sorted(paths)]
    return [f"Not used, {reason}: {shortened_list(names)}."] if names else []


def _tables_in(folder: Path) -> tuple[list[_Candidate], list[Path]]:
    """Return the tables of a folder, of its `data` and of its folders named after a split; and what else it has."""
    tables = []
    others = []
    for path in sorted(folder.iterdir(), key=_natural):
        if path.name.startswith(".") or path.name.lower().startswith(_DOCUMENTS) or path.name in _METADATA:
            continue
        if is_saved(path):
            tables.append(_candidate(path, split_of(path.name), {path.name}))
        elif path.is_dir():
            inner = _tables_of_folder(path)
            tables += inner
            if not inner:
                others.append(path)
        elif _is_table(path):
            tables.append(_candidate(path, split_of(_stem(path)), {path.name, _stem(path)}))
        else:
            others.append(path)
    return tables, others


def _tables_of_folder(path: Path) -> list[_Candidate]:
    """Return the tables of a sub-folder named `data` or after a split; none of another one."""
    if path.name.lower() == "data":
        return _tables_in(path)[0]
    split = SPLIT_NAMES.get(re.sub(r"[^a-z]+$", "", path.name.lower()))
    if split is None:
        return []
    files = [file for file in sorted(path.iterdir(), key=_natural) if file.is_file() and _is_table(file)]
    return [_candidate(file, split, {path.name, f"{path.name}/{file.name}"}) for file in files]


def _candidate(path: Path, split: str | None, names: set[str]) -> _Candidate:
    shortened = {_SHARD.sub("", name) for name in names}
    known = {split} if split else set()
    return _Candidate(path, split, frozenset(name.lower() for name in names | shortened | known))


def _is_table(path: Path) -> bool:
    return table_suffix(path) in TRAINING_SUFFIXES and path.name not in _METADATA


def _stem(path: Path) -> str:
    """Return the name without the suffixes of the format and of a compression."""
    stem = path.stem if path.suffix.lower() in COMPRESSED else path.name
    return stem[: -len(suffix)] if (suffix := Path(stem).suffix) else stem


def _natural(path: Path) -> list:
    """Return a key by which train_2 comes before train_10."""
    parts = re.split(r"(\d+)", _stem(path))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def _without_documents(tables: list[_Candidate]) -> tuple[list[_Candidate], list[Path]]:
    """Return the candidates without .json and .txt files beside tables of the same split: training_params.json, …"""
    may_be_documents = (".json", ".txt")
    with_tables = {table.split for table in tables if table_suffix(table.path) not in may_be_documents}
    kept = []
    documents = []
    for table in tables:
        is_document = table_suffix(table.path) in may_be_documents and table.split in with_tables
        if is_document:
            documents.append(table.path)
        else:
            kept.append(table)
    return kept, documents


def _one_format_each(tables: list[_Candidate]) -> tuple[list[_Candidate], list[Path]]:
    """Return one candidate of each name, and the files that have the same name with another suffix."""
    best: dict[Path, _Candidate] = {}
    for candidate in tables:
        name = candidate.path.with_name(_stem(candidate.path))
        if name not in best or _rank(candidate.path) < _rank(best[name].path):
            best[name] = candidate
    kept = [candidate for candidate in tables if candidate in best.values()]
    return kept, [candidate.path for candidate in tables if candidate not in kept]


def _rank(path: Path) -> int:
    suffix = table_suffix(path)
    return _PREFERRED.index(suffix) if suffix in _PREFERRED else -1


def _choose_files(folder: Path, tables: list[_Candidate], wanted: Wanted) -> dict[str, list[Path]]:
    """Return the files of each split, in the order of `tables`. Raises DataError."""
    names = [str(candidate.path.relative_to(folder)) for candidate in tables]
    chosen = {}
    for split, name in wanted.items():
        if name is not None:
            chosen[split] = [table.path for table in tables if name.lower() in table.names]
            if not chosen[split]:
                raise DataError(unknown(f"split of {folder.name}", name, names))
    taken = {path for files in chosen.values() for path in files}
    for split in SPLITS:
        if split not in chosen:
            files = [table.path for table in tables if table.split == split and table.path not in taken]
            if files:
                chosen[split] = files
    if not chosen and len({table_suffix(table.path) for table in tables}) == 1:
        chosen["train"] = [table.path for table in tables]
    if "train" not in chosen:
        raise DataError(
            f"Folder {folder} has no train file, only {shortened_list(names)}: name the one to train on with "
            "--train-split."
        )
    return {split: chosen[split] for split in SPLITS if split in chosen}
