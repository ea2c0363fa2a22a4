"""Whether the base model that somebody's config names is the app's: by id, by hash, or not to be told from the name."""

import os
import re
from enum import Enum
from pathlib import Path

from adapter_arena.errors import BaseModelError, shortened_list
from adapter_arena.models import bases, weights

_CACHE_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_URL = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


class Relation(Enum):
    """How a name relates to a base model."""

    SAME = "it is the base model"
    LIKELY = "somebody's path or copy: it is the base model if every tensor's shape fits"
    OTHER = "it is another model"


def relation(name: str | None, base: bases.Base) -> Relation:
    """Return how the name of a base model in somebody's config relates to `base`."""
    if not name:
        return Relation.LIKELY
    hub_id = _hub_id(name)
    known = _known_names(base)
    if name in (base.id, base.label) or hub_id.casefold() in known:
        return Relation.SAME
    if sha256 := _sha256_of_folder(name):
        return Relation.SAME if sha256 == sha256_of_base(base) else Relation.OTHER
    last = re.split(r"[/\\]", hub_id.rstrip("/\\"))[-1].casefold()
    if last in {known_name.rpartition("/")[2] for known_name in known}:
        return Relation.LIKELY
    if not _is_path(hub_id) or last in _names_of_others(base):
        return Relation.OTHER
    return Relation.LIKELY


def is_known(name: str | None) -> bool:
    """Return whether the name is that of a base model in `bases.BASES`."""
    hub_id = _hub_id(name or "").casefold()
    return hub_id in {known.casefold() for known in (*bases.BASES, *bases.ALIASES)}


def problem(name: str | None, base: bases.Base, field: str, is_full: bool = False) -> str | None:
    """Return why something trained on the base model `name` cannot be served on `base`, or None if it can.

    `field` is the place of the name. A complete model brings its own weights, so its shapes decide if the name is
    unknown.
    """
    found = relation(name, base)
    if found is not Relation.OTHER or (is_full and not is_known(name)):
        return None
    return (
        f"is for base model {shortened_list([str(name)])}, not {base.label}: start the app with that base, "
        f"or correct {field} if it is a copy of {base.label}"
    )


def note(name: str | None, base: bases.Base) -> str | None:
    """Return what to say about the name of the base model, or None if it is the name of `base`."""
    if relation(name, base) is Relation.SAME:
        return None
    named = f"base named {shortened_list([name])}" if name else "no base named"
    return f"{named}; served on {base.label} because every tensor's shape fits"


def sha256_of_base(base: bases.Base) -> str:
    """Return the hash of the base model's weights."""
    return base.sha256 or weights.sha256(bases.locate(base))


def _sha256_of_folder(name: str) -> str | None:
    """Return the hash of the weights in a folder of this name; None if there is no such folder with all of them."""
    # Unlike Path.is_file, os.path.isfile raises nothing for names of any length.
    if not any(os.path.isfile(os.path.join(name, file)) for file in (weights.SINGLE, weights.INDEX)):
        return None
    try:
        return weights.sha256(Path(name))
    except BaseModelError:  # a shard is missing
        return None


def _hub_id(name: str) -> str:
    """Return the Hub id in a URL or in a path of the Hub's cache; other names are returned as they are."""
    if found := _CACHE_FOLDER.search(name):
        return f"{found[1]}/{found[2]}"
    if _URL.match(name):
        name = "/".join(_URL.sub("", name).split("/")[:2])
    return name.partition("@")[0].strip().rstrip("/") if not _is_path(name) else name


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or "\\" in name or ":" in name or name.count("/") > 1


def _known_names(base: bases.Base) -> set[str]:
    """Return the names of the base in lower case, also those that the Hub redirects to it."""
    names = {base.id, base.label}
    for alias, target in bases.ALIASES.items():
        if target == base.id:
            names.add(alias)
    return {name.casefold() for name in names}


def _names_of_others(base: bases.Base) -> set[str]:
    """Return the names, without their owners, of the other known base models."""
    names = [name for name in bases.BASES if name != base.id]
    names.extend(alias for alias, target in bases.ALIASES.items() if target != base.id)
    return {name.rpartition("/")[2].casefold() for name in names}
