"""Made files of known content: what is read is what was written, or the file is refused; never fewer rows.

FUZZ_EXAMPLES=10000 python -m pytest tests/data/test_file_properties.py    # make test tries 20 of each
"""

import collections
import csv
import gzip
import io
import json
import os

import pandas
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adapter_arena.data import tables
from adapter_arena.errors import DataError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 20))
tried = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 200,  # in CI the same ones every time
    database=None,
    suppress_health_check=list(HealthCheck),
)
COUNTS = collections.Counter()

PIECES = st.sampled_from(
    [
        "good",
        "film",
        "the",
        '"',
        '""',
        ",",
        ";",
        "\t",
        "|",
        "'",
        "\n",
        "\r\n",
        "\\",
        "é",
        "映画",
        " ",
        "5",
        "sep=;",
        "[1]",
        "\x85",
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=8).map(" ".join) | st.lists(PIECES, min_size=1, max_size=8).map("".join)
LINES = TEXTS.map(lambda text: " ".join(text.replace("\t", " ").replace("|", " ").split()))
"""Texts without tabs and line breaks, for files without quotation marks around cells."""
LABELS = st.sampled_from(["bad", "good", "so-so", "1", "映"])


def rows_of(texts):
    return st.lists(st.tuples(texts, LABELS), min_size=1, max_size=25)


@pytest.fixture(scope="module", autouse=True)
def summary():
    yield
    print(f"\nfiles: {dict(COUNTS)}")


def read(path) -> list[tuple[str, str]] | None:
    """Return the rows as pairs of text and label; None if the file is refused, which takes one line."""
    try:
        frame = pandas.concat(tables.iter_frames(path))
    except DataError as error:
        message = str(error)
    else:
        COUNTS["read"] += 1
        return list(zip(frame["text"], frame["label"]))
    assert len(message.splitlines()) == 1
    COUNTS["refused"] += 1
    return None


def write(folder, name: str, content: str, encoding: str = "utf-8", compressed: bool = False):
    path = folder.getbasetemp() / (f"{name}.gz" if compressed else name)
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data, 1) if compressed else data)
    return path


def table(rows, separator=",", quoting=csv.QUOTE_MINIMAL, line_end="\n", order=("text", "label")) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=line_end)
    writer.writerow(order)
    for text, label in rows:
        writer.writerow([text, label] if order[0] == "text" else [label, text])
    return buffer.getvalue()


@tried
@given(
    rows_of(TEXTS),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([("text", "label"), ("label", "text")]),
    st.booleans(),
    st.booleans(),
)
def test_quoted_tables(tmp_path_factory, rows, separator, quoting, line_end, encoding, order, names_separator, packed):
    content = table(rows, separator, quoting, line_end, order)
    if names_separator:
        content = f"sep={separator}{line_end}{content}"
    suffix = ".tsv" if separator == "\t" else ".csv"
    found = read(write(tmp_path_factory, f"quoted{suffix}", content, encoding, packed))
    assert found in (None, rows)


@tried
@given(rows_of(TEXTS))
def test_quoted_tables_without_doubt_are_not_refused(tmp_path_factory, rows):
    """Every row has a cell with a space at its start, which no swallowed label has: there is nothing to doubt."""
    rows = [(f"{text}.", label) for text, label in rows if "\n" not in text and "\r" not in text]
    assume(rows)
    assert read(write(tmp_path_factory, "sure.csv", table(rows))) == rows


@tried
@given(rows_of(LINES), st.sampled_from([("text", "label"), ("label", "text")]))
def test_tab_separated_lines_without_quotation(tmp_path_factory, rows, order):
    rows = [(text, label) for text, label in rows if text]
    # `"a ""b"" c"` may be a quoted cell or a text: nobody can tell.
    assume(rows and not any(text.startswith('"') and text.endswith('"') and '""' in text[1:-1] for text, _ in rows))
    lines = ["\t".join(order)]
    for text, label in rows:
        lines.append(f"{text}\t{label}" if order[0] == "text" else f"{label}\t{text}")
    found = read(write(tmp_path_factory, "plain.tsv", "\n".join(lines) + "\n"))
    assert found in (None, rows)


@tried
@given(rows_of(LINES), st.sampled_from([",", "\t", ";"]), st.data())
def test_damaged_tables_never_lose_rows(tmp_path_factory, rows, separator, data):
    """Quotation marks are added at the start or the end of cells, none of which was quoted.

    Within a quoted cell, two more marks may make another valid table, which nobody can tell from the one that was meant.
    """
    rows = [
        (f"{text} {number}".replace('"', "'").replace(separator, " "), label)
        for number, (text, label) in enumerate(rows)
    ]
    content = table(rows, separator)
    assume('"' not in content)
    ends = [place for place, character in enumerate(content) if character in (separator, "\n")][2:-1]
    assume(ends)
    for place in sorted(data.draw(st.sets(st.sampled_from(ends), max_size=4)), reverse=True):
        place += data.draw(st.integers(0, 1))
        content = f'{content[:place]}"{content[place:]}'
    found = read(write(tmp_path_factory, "damaged.csv", content))
    assert found is None or len(found) >= len(rows), content


@tried
@given(rows_of(LINES), st.sampled_from([",", "\t", ";"]), st.booleans())
def test_tables_without_a_header(tmp_path_factory, rows, separator, label_first):
    """Either every row is read, in columns with generated names, or the columns `text` and `label` are missing."""
    rows = [(f"{text} {number}", label) for number, (text, label) in enumerate(rows)]
    content = table(rows, separator, order=("label", "text") if label_first else ("text", "label"))
    content = content.partition("\n")[2]
    path = write(tmp_path_factory, "headless.csv", content)
    try:
        frame = pandas.concat(tables.iter_frames(path))
    except DataError:
        COUNTS["refused"] += 1
        return
    if {"text", "label"} <= set(frame.columns):
        COUNTS["read"] += 1
        assert list(zip(frame["text"], frame["label"])) == rows
    else:  # refused, because its columns have no usual names
        COUNTS["refused"] += 1


@tried
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), LABELS), min_size=1, max_size=25
    ),
    st.sampled_from(["lines", "list", "indented", "data", "columns", "parquet", "arrow", "feather"]),
    st.booleans(),
)
def test_json_parquet_and_arrow(tmp_path_factory, rows, layout, packed):
    records = [{"text": text, "label": label} for text, label in rows]
    frame = pandas.DataFrame(records)
    documents = {
        "lines": lambda: "\n".join(map(json.dumps, records)),
        "list": lambda: json.dumps(records, ensure_ascii=False),
        "indented": lambda: json.dumps(records, indent=2),
        "data": lambda: json.dumps({"version": "1.0", "data": records}),
        "columns": lambda: json.dumps(frame.to_dict(orient="list")),
    }
    if layout in documents:
        suffix = "jsonl" if layout == "lines" and packed else "json"
        path = write(tmp_path_factory, f"rows.{suffix}", documents[layout](), compressed=packed)
    else:
        path = tmp_path_factory.getbasetemp() / f"rows.{layout}"
        frame.to_parquet(path) if layout == "parquet" else frame.to_feather(path)
    assert read(path) == rows
