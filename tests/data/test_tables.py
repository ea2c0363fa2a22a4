import os
import zipfile

import pandas
import pytest

from adapter_arena.data import encodings, parsers, tables
from adapter_arena.data.tables import Limits
from adapter_arena.errors import DataError, RequestError

SMALL = Limits(megabytes=1, rows=100)


def write(tmp_path, content, name="reviews.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def assert_rejected(path, message, limits=SMALL):
    with pytest.raises(DataError, match=message) as caught:
        tables.read(path, limits)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    assert str(path.parent) not in line  # clients must not learn the server's paths


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_every_format_gives_the_same_texts(tmp_path, suffix):
    texts = ["A fine film.", "<b>Dull</b> <script>alert(1)</script>", "Größe, naïveté, 映画 🎬"]
    frame, path = pandas.DataFrame({"text": texts}), tmp_path / f"Reviews{suffix.upper()}"
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".txt": lambda: path.write_text("\n".join(texts)),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[suffix]()
    table = tables.read(path, SMALL)
    assert table.frame["text"].tolist() == texts
    assert table.notes == []


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_are_found_in_the_header(tmp_path, separator):
    path = write(tmp_path, f'"id"{separator}"text, in full; really"\n1{separator}"a; b, c\td"\n')
    frame = tables.read(path, SMALL).frame
    assert frame.to_dict("records") == [{"id": "1", "text, in full; really": "a; b, c\td"}]


def test_quotes_and_line_breaks_stay_in_their_cells(tmp_path):
    path = write(tmp_path, 'text,label\r\n"He said ""go"".\r\nI went, gladly.",1\r\n=1+1,0\r\n')
    assert tables.read(path, SMALL).frame["text"].tolist() == ['He said "go".\r\nI went, gladly.', "=1+1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path, encoding):
    path = write(tmp_path, "text,label\ncafé,1\n".encode(encoding))
    table = tables.read(path, SMALL)
    assert list(table.frame.columns) == ["text", "label"]
    assert table.frame["text"].tolist() == ["café"]
    assert table.notes == []


@pytest.mark.parametrize(
    ("content", "text", "name"),
    [
        ("café".encode("latin-1"), "café", "Windows-1252"),
        ("“café” – 5 €".encode("cp1252"), "“café” – 5 €", "Windows-1252"),
        ("caf\xe9 \x81".encode("latin-1"), "café \x81", "Latin-1"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_other_encodings_are_read_and_reported(tmp_path, content, text, name, suffix):
    path = write(tmp_path, b"text\n" * (suffix == ".csv") + content + b"\n", f"old{suffix}")
    table = tables.read(path, SMALL)
    assert table.frame["text"].tolist() == [text]
    assert table.notes == [f"{path.name} is not UTF-8: it was read as {name}. If letters look wrong, save it as UTF-8."]


def test_a_character_across_two_blocks_is_still_utf8(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "_BLOCK_SIZE", 7)
    assert tables.read(write(tmp_path, "text\n" + "é映🎬" * 20), SMALL).notes == []


def test_training_data_must_be_utf8_and_may_be_large(tmp_path):
    path = write(tmp_path, "text\ncafé\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(tables.iter_frames(path))
    path = write(tmp_path, "text\n" + "a film\n" * 25_000)
    sizes = [len(part) for part in tables.iter_frames(path)]
    assert (sum(sizes), max(sizes)) == (25_000, 10_000)
    with pytest.raises(DataError, match="over 100 rows"):
        tables.read(path, SMALL)


def test_one_column_is_enough(tmp_path):
    assert tables.read(write(tmp_path, "comment\nfine\n\ndull\n"), SMALL).frame["comment"].tolist() == ["fine", "dull"]


def test_ten_thousand_columns_are_the_limit(tmp_path):
    for n in (parsers.MAX_COLUMNS, parsers.MAX_COLUMNS + 1):
        path = write(tmp_path, ",".join(f"c{i}" for i in range(n)) + "\n" + ",".join("x" * n) + "\n")
        if n == parsers.MAX_COLUMNS:
            assert tables.read(path, SMALL).frame.shape == (1, n)
        else:
            assert_rejected(path, "over 10,000 columns, the limit")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".txt"])
def test_rows_are_limited(tmp_path, suffix):
    frame = pandas.DataFrame({"text": [f"film {i}" for i in range(101)]})
    for rows in (100, 101):
        path, part = tmp_path / f"many{suffix}", frame.head(rows)
        writers = {
            ".csv": lambda path=path, part=part: part.to_csv(path, index=False),
            ".jsonl": lambda path=path, part=part: part.to_json(path, orient="records", lines=True),
            ".parquet": lambda path=path, part=part: part.to_parquet(path),
            ".txt": lambda path=path, part=part: path.write_text("\n".join(part["text"])),
        }
        writers[suffix]()
        if rows == 100:
            assert len(tables.read(path, SMALL).frame) == 100
        else:
            assert_rejected(path, r"over 100 rows, the limit \(ARENA_MAX_ROWS\): split it")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_cells_are_limited(tmp_path, suffix):
    path = tmp_path / f"wide{suffix}"
    frame = pandas.DataFrame([[0] * 10] * 6, columns=list("abcdefghij"))
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:  # every line adds a column
        path.write_text("\n".join(f'{{"c{i}": 1}}' for i in range(10)))
    assert_rejected(path, "more than 50 cells, the limit: leave out columns", Limits(megabytes=1, rows=100, cells=50))


def test_the_unpacked_size_of_a_parquet_file_is_limited(tmp_path):
    path = tmp_path / "bomb.parquet"
    pandas.DataFrame({"text": ["long " * 4000] * 2000}).to_parquet(path)  # 40 MB in 10 kB
    assert path.stat().st_size < 1e6
    assert_rejected(path, "unpacks to over 10 MB", Limits(megabytes=1, rows=100_000))


def test_a_file_over_the_limit_is_not_opened(tmp_path, monkeypatch):
    path = write(tmp_path, "text\n")
    os.truncate(path, 200_000_000)
    monkeypatch.setattr(type(path), "open", lambda *_, **__: pytest.fail("it was opened"))
    assert_rejected(path, r"has 200 MB, over the limit of 100 MB \(ARENA_MAX_FILE_MB\)", Limits())


def test_limits_come_from_the_environment(monkeypatch):
    assert Limits() == Limits(megabytes=100, rows=100_000)
    monkeypatch.setenv("ARENA_MAX_FILE_MB", "0.5")
    monkeypatch.setenv("ARENA_MAX_ROWS", "7")
    assert Limits() == Limits(megabytes=0.5, rows=7)


def test_a_huge_cell_is_read_completely(tmp_path):
    text = "word " * 180_000 + "end"
    for path in (write(tmp_path, f'text\n"{text}"\n'), write(tmp_path, text, "one.txt")):
        assert tables.read(path, SMALL).frame["text"].tolist() == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xef\xbb\xbf", "is empty"),
        ("a.csv", b"\n\n  \n", "is empty|no rows"),
        ("a.txt", b"\n \n", "is empty"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", b"text,label\n", "has a header and no rows"),
        ("a.csv", b"text,label\na,1\nb,2,3\n", "line 3 has 3 cells for 2 columns"),
        ("a.csv", b"text,label\na,1,x\nb,2,x\n", "line 2 has 3 cells for 2 columns"),
        ("a.csv", b"text\nGood, really\n", "line 2 has 2 cells for 1 columns; quote cells"),
        ("a.csv", b'text,label\n"open,1\nb,2\n', "line 2 opens a quotation mark that is never closed"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is not text"),
        ("a.csv", bytes(range(1, 32)) * 9, "it is not text"),
        ("a.csv", b"PAR1 and so on", "it is a Parquet file; rename it to .parquet"),
        ("a.txt", b"%PDF-1.7", "it is a PDF"),
        ("a.csv", b"\x1f\x8b\x08\0", "it is a gzip archive; unpack it"),
        ("a.csv", b"\x80\x04\x95\x0b\0\0\0", "it is not text"),
        ("a.csv", b"\xff\xfea\0b", "is not UTF-8"),
        ("a.parquet", b"text,label\na,1\n", "cannot be read as .parquet"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'[\n{"text": "a"}\n]', "line 1 is not JSON"),
        ("a.jsonl", b'{"text": ' + b"[" * 200_000, "cannot be read as .jsonl"),
        ("a.pkl", b"\x80\x04", "is not a .csv, .tsv, .jsonl, .txt, .parquet file: convert"),
        ("a", b"text\nx\n", "is not a .csv"),
    ],
)
def test_faults_of_a_file_are_reported_in_one_line(tmp_path, name, content, message):
    assert_rejected(write(tmp_path, content, name), message)


def test_an_endless_header_is_rejected(tmp_path):
    assert_rejected(write(tmp_path, b"," * 1_500_000), "its first line must name the columns", Limits())


def test_a_renamed_zip_a_folder_and_a_missing_file_are_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "sheet.csv", "w") as archive:
        archive.writestr("text.csv", "text\nfine\n")
    assert_rejected(
        tmp_path / "sheet.csv", "it is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"
    )
    (tmp_path / "folder.csv").mkdir()
    assert_rejected(tmp_path / "folder.csv", "is a folder")
    assert_rejected(tmp_path / "missing.csv", "There is no file missing.csv")


def test_short_rows_end_in_empty_cells(tmp_path):
    frame = tables.read(write(tmp_path, "text,label\nfine\ndull,0\n"), SMALL).frame
    assert frame["label"].tolist() == ["", "0"]


def test_column_names_are_distinct(tmp_path):
    frame = tables.read(write(tmp_path, "text,,text, a ,\n1,2,3,4,5\n"), SMALL).frame
    assert list(frame.columns) == ["text", "column 2", "text (2)", "a", "column 5"]


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path):
    path = write(tmp_path, '{"text": "a\\ud83d"}\n{"text": "\\ud83c\\udfac"}\n', "a.jsonl")
    assert tables.read(path, SMALL).frame["text"].tolist() == ["a?", "🎬"]


def test_blank_lines_are_not_rows():
    assert tables.from_lines("one\r\n\n  two \n\u2028\n", SMALL)["text"].tolist() == ["one", "two"]
    with pytest.raises(RequestError, match="There is no text"):
        tables.from_lines(" \n", SMALL)
    with pytest.raises(RequestError, match="101 lines, over the limit of 100"):
        tables.from_lines("x\n" * 101, SMALL)
