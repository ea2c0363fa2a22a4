"""What the `datasets` library leaves in files: folders of `save_to_disk`, and class names in Parquet and Arrow."""

import json
import numbers
from pathlib import Path

import numpy
import pandas
import pyarrow
from pyarrow.parquet import read_schema

from adapter_arena.data.compressed import is_compressed, table_suffix
from adapter_arena.data.parsers import open_arrow
from adapter_arena.errors import DataError, one_line

ClassNames = dict[str, list[str]]
"""Names of the classes, by number, of each column that has them."""


def load(path: Path):
    """Return the `datasets.Dataset` or `datasets.DatasetDict` of a folder of `save_to_disk`. Raises DataError."""
    import datasets  # slow to import

    try:
        return datasets.load_from_disk(str(path))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        pyarrow.ArrowException,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise DataError(f"{path.name} cannot be read as a saved dataset: {one_line(error)}. Save it again.") from error


def names_of_features(split) -> ClassNames:
    """Return the class names of a `datasets` split."""
    import datasets

    names = {}
    for column, feature in (split.features or {}).items():
        feature = getattr(feature, "feature", feature)  # of each entry of a list
        if isinstance(feature, datasets.ClassLabel):
            names[column] = feature.names
    return names


def class_names(path: Path) -> ClassNames:
    """Return the class names in the metadata of a Parquet or Arrow file, or of a saved dataset; none of another file.

    A file that cannot be read has none: reading its rows reports why.
    """
    if path.is_dir():
        loaded = load(path)
        return {} if isinstance(loaded, dict) else names_of_features(loaded)
    suffix = table_suffix(path)
    if is_compressed(path) or suffix not in (".parquet", ".arrow", ".feather"):
        return {}
    try:
        schema = read_schema(path) if suffix == ".parquet" else _arrow_schema(path)
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {}
        for column, feature in features.items():
            feature = feature.get("feature") or feature  # of each entry of a list
            if feature.get("_type") == "ClassLabel" and feature.get("names"):
                found[column] = [str(name) for name in feature["names"]]
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException):
        return {}


def _arrow_schema(path: Path) -> pyarrow.Schema:
    with path.open("rb") as file:
        return open_arrow(file).schema


def with_class_names(frame: pandas.DataFrame, class_names: ClassNames) -> pandas.DataFrame:
    """Return the frame with classes by name instead of by number.

    The label -1, which many test splits have because their labels are secret, becomes a missing label. Other values
    without a name stay as they are, so that they are seen.
    """
    for column, names in class_names.items():
        if column in frame:
            frame[column] = pandas.Series([_name(value, names) for value in frame[column]], dtype=object)
    return frame


def _name(value: object, names: list[str]) -> object:
    if isinstance(value, list | numpy.ndarray):
        return [_name(entry, names) for entry in value]
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else value
