"""What a cell of a label column holds besides one name: a list of labels, or a number."""

import ast
import json
import math
import re

from adapter_arena.errors import DataError

LIST = re.compile(r"[\[({].*[\])}]", re.DOTALL)
"""Text that is a list, in JSON or as Python prints one."""
SEPARATORS = ("|", ";", ",")
"""Marks that join several labels in a cell, in the order in which they are looked for."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_NO_COMMA = re.compile(r"""(['"])\s+\1""")
"""Between the quoted entries of a printed numpy array, which Python would join to one."""


def entries(cell: str, separator: str | None, column: str) -> list[str]:
    """Return the labels in a cell: a list in JSON or Python, names joined with the separator, or one name.

    Raises DataError, which names the column, for what is not a list.
    """
    text = cell.strip()
    if not LIST.fullmatch(text):
        return text.split(separator) if separator else [text]
    try:
        found = json.loads(text)
    except ValueError:
        found = _python_list(text, column)
    if isinstance(found, dict):
        raise DataError(f"{column} holds an object ({text!r:.80}), not a list of labels: write a list of names.")
    return ["" if entry is None else str(entry) for entry in found]


def _python_list(text: str, column: str) -> list:
    try:
        if _NO_COMMA.search(text):
            raise ValueError("entries without a comma between them")
        return list(ast.literal_eval(text)) if text != "{}" else []
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(f'{column} holds {text!r:.80}, which is not a list: write ["a", "b"] or a|b.') from error


def number(name: str) -> float | None:
    """Return the finite number that a cell spells, also with a decimal comma; None if it is not one."""
    if DECIMAL_COMMA.fullmatch(name):
        name = name.replace(",", ".")
    try:
        found = float(name)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
