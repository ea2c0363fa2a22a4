"""Rows of JSON files: a JSON object per line, or one document."""

import json
from collections.abc import Iterable, Iterator

from adapter_arena.data.labels import LABEL_COLUMNS, TEXT_COLUMNS, usual_columns


def of_lines(lines: Iterable[str]) -> Iterator[dict]:
    """Yield the object of each line that is not blank. Raises ValueError."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _object_of(line, number)


def has_a_row_a_line(lines: Iterable[str]) -> bool:
    """Return whether a file has one JSON object per line, and not one document."""
    for line in lines:
        if line.strip():
            return line.lstrip().startswith("{") and _is_complete(line) and any(other.strip() for other in lines)
    return False


def _is_complete(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _object_of(line: str, number: int) -> dict:
    """Return the JSON object of a line. Raises ValueError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        hint = "; rename it to .json if it is one document" if line.strip() in ("[", "{") else ""
        raise ValueError(f"line {number} is not JSON ({error.msg}); each line must be one JSON object{hint}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a JSON object; each line must be one")
    if "\\ud" in line.lower():
        row = _repaired(row)
    return row


def of_document(content: str) -> Iterator[dict]:
    """Yield the rows of one JSON document. Raises ValueError.

    It is a list of objects, an object with such a list as its only list (`{"data": [...]}`), or an object with a list
    or an object of cells for each column, as pandas writes it.
    """
    if not content.strip():
        return
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not JSON ({error.msg})") from error
    for number, row in enumerate(_rows(document), 1):
        if not isinstance(row, dict):
            raise ValueError(f"entry {number} is not a JSON object; each row must be one")
        yield _repaired(row) if "\\ud" in content.lower() else row


def _rows(document: object) -> list:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not document:
        raise ValueError("it is not a list of objects; write one object per row")
    if not any(isinstance(value, dict | list) for value in document.values()):
        return [document]
    lists = [value for value in document.values() if isinstance(value, list)]
    tables = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
    lengths = {len(cells) for cells in lists}
    if len(tables) > 1:
        names = [name for name, value in document.items() if value in tables]
        raise ValueError(f"it has several tables ({', '.join(names):.150}); write each to a file of its own")
    if len(tables) == 1 and (len(lists) == 1 or len(lengths) > 1):
        return tables[0]
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return _of_split(document["columns"], document["data"])
    if len(lists) == len(document):
        return _of_columns(document)
    if all(isinstance(value, dict) for value in document.values()):
        return _of_indexed(document)
    raise ValueError("it is neither a list of rows nor an object of columns; write a list with one object per row")


def _of_split(columns: list, data: list) -> list[dict]:
    for number, row in enumerate(data, 1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"entry {number} of data does not have a cell for each of the {len(columns)} columns")
    return [dict(zip(map(str, columns), row)) for row in data]


def _of_columns(columns: dict[str, list]) -> list[dict]:
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"its columns have different numbers of rows ({sizes:.150})")
    return [dict(zip(columns, cells)) for cells in zip(*columns.values())]


def _of_indexed(document: dict[str, dict]) -> list[dict]:
    """Return the rows of `{column: {row: cell}}` or, if the inner keys have usual names, `{row: {column: cell}}`."""
    inner = list(document.values())
    if any(cells.keys() != inner[0].keys() for cells in inner):
        raise ValueError("its columns, or rows, do not all have the same keys; write a list with one object per row")
    if usual_columns(inner[0], (*TEXT_COLUMNS, *LABEL_COLUMNS)):
        return inner
    return [{name: cells[key] for name, cells in document.items()} for key in inner[0]]


def _repaired(row: dict) -> dict:
    """Return the row without halves of surrogate pairs: they are no characters, and Arrow refuses them."""
    return {_without_surrogates(key): _without_surrogates(value) for key, value in row.items()}


def _without_surrogates(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
