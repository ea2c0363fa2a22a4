"""The names of an adapter's classes, by their ids, from the files in which PEFT, the Trainer and people write them."""

import re
from collections.abc import Iterator
from pathlib import Path

from adapter_arena.adapters import documents
from adapter_arena.errors import AdapterError, shortened_list

_MAX_LABEL = 100
"""Characters of a label that are kept."""
_DEFAULT = re.compile(r"LABEL_(\d+)")
_LIST_FIELDS = ("labels", "label_names", "class_names", "classes")


def find(folder: Path, config: dict, outputs: int) -> tuple[list[str], list[str]]:
    """Return the name of each of the head's `outputs`, and notes about names that were not used.

    The sources are, the most certain first: the config that was read, config.json next to an adapter, and the card.
    Without names, classes are called LABEL_0, LABEL_1, …
    """
    notes = []
    chosen: list[str] | None = None
    chosen_source = ""
    for source, names in _sources(folder, config):
        if isinstance(names, str):
            notes.append(f"the class names in {source} are not used: {names}")
        elif len(names) != outputs:
            notes.append(f"{source} names {len(names)} classes, but the head has {outputs} outputs; they are not used")
        elif chosen is None:
            chosen = names
            chosen_source = source
        elif names != chosen:
            notes.append(
                f"{source} names the classes {shortened_list(names)}, "
                f"but {chosen_source} {shortened_list(chosen)}, which is used"
            )
    return chosen or [f"LABEL_{i}" for i in range(outputs)], notes


def _sources(folder: Path, config: dict) -> Iterator[tuple[str, list[str] | str]]:
    """Yield each source and its names, or why they cannot be used."""
    documents_by_name = {"the config": config}
    beside = folder / "config.json"
    if (folder / "adapter_config.json").is_file() and beside.is_file():
        try:
            documents_by_name["config.json"] = documents.read_json(beside)
        except AdapterError as error:
            yield "config.json", str(error).partition(": ")[2].rstrip(".")
    card = documents.card_metadata(folder)
    documents_by_name["the card"] = card
    for source, document in documents_by_name.items():
        for field in ("id2label", "label2id", *_LIST_FIELDS):
            if names := _names_of_field(field, document.get(field)):
                yield f"{field} of {source}", names
    if names := _names_of_dataset(card.get("dataset_info")):
        yield "dataset_info of the card", names


def _names_of_field(field: str, value: object) -> list[str] | str | None:
    """Return the names in the order of their ids, why they cannot be used, or None if there are none."""
    if field == "label2id" and isinstance(value, dict):
        if len(set(map(str, value.values()))) != len(value):
            return "an id has two names"
        value = {str(index): name for name, index in value.items()}
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return None
    by_id = {_to_id(key): name for key, name in value.items()}
    if sorted(by_id, key=str) != sorted(range(len(value)), key=str):
        return f"their ids are not 0 to {len(value) - 1}"
    names = []
    for index in range(len(value)):
        names.append(" ".join(str(by_id[index]).split())[:_MAX_LABEL])
    if all(_DEFAULT.fullmatch(name) for name in names):
        return None
    if len(set(names)) != len(names):
        return "two classes have the same name"
    if not all(names):
        return "a class has no name"
    return names


def _to_id(key: object) -> int | None:
    """Return the id in a key: 1, "1", "1.0" and "LABEL_1" are the same; None if it is none."""
    found = re.fullmatch(r"(?:LABEL_)?(\d{1,5})(?:\.0)?", str(key).strip())
    return int(found[1]) if found else None


def _names_of_dataset(info: object) -> list[str] | str | None:
    """Return the names of the only class label among the features of `dataset_info`."""
    infos = info if isinstance(info, list) else [info]
    found = []
    for one in infos:
        features = one.get("features") if isinstance(one, dict) else None
        for feature in features if isinstance(features, list) else []:
            kind = feature.get("dtype") if isinstance(feature, dict) else None
            label = kind.get("class_label") if isinstance(kind, dict) else None
            if isinstance(label, dict) and (names := _names_of_field("names", label.get("names"))):
                found.append(names)
    if not found:
        return None
    return found[0] if all(names == found[0] for names in found) else "it has several lists of names"
