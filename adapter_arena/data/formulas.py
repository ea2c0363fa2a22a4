"""Cells of CSV files that a spreadsheet would evaluate as formulas."""

# OWASP, "CSV Injection": a spreadsheet evaluates a cell that begins with one of these, full-width ones included.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def escape_formula(cell: str) -> str:
    """Return the text for a cell of a CSV file, after a ' if a spreadsheet would evaluate it as a formula.

    A text that begins with such a ' gets another one, so that `unescape_formula` returns each text unchanged.
    """
    return f"'{cell}" if cell.lstrip("'").startswith(_STARTS) else cell


def unescape_formula(cell: str) -> str:
    """Return the text that `escape_formula` wrote as this cell."""
    is_escaped = cell.startswith("'") and cell.lstrip("'").startswith(_STARTS)
    return cell[1:] if is_escaped else cell
