"""Score a data set of any size with one adapter, on as many workers as there are: one machine or a cluster.

    pip install "ray[data]" aiohttp
    python -m adapter_arena.serve.scoring reviews/*.parquet --adapter minilm-imdb-qlora --output scored --workers 8

Ray Data reads the files in blocks, hands them to the workers in order, and gives those of a worker that died to
another. Each worker is a process with one engine. `--output` gets parquet files whose names sort in the order of the
rows: the columns that were there, and predicted_label, confidence and error.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

from adapter_arena import runtime

runtime.configure()  # in the workers too

import numpy

from adapter_arena.adapters import exporting, store
from adapter_arena.data import tables
from adapter_arena.data.labels import TEXT_COLUMNS, usual_columns
from adapter_arena.errors import ArenaError, DataError, RecipeError, unknown
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases
from adapter_arena.serve.engine import Engine

ROWS = 2048
"""Of one call of a worker: seconds of work, so that little is done again when one dies, and all have some of a file."""
ADDED = ("predicted_label", "confidence", "error")


class Scorer:
    """What one worker holds: an engine with the adapter."""

    def __init__(self, folder: str, base: str, text_column: str):
        self._text_column = text_column
        self._engine = Engine(bases.find(base))
        self._engine.add_folder(Path(folder))
        self._engine.heat(Path(folder).name)

    def __call__(self, batch: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
        """The batch with its answers; a row that has none has the reason in `error`."""
        answers = self._engine.predict(list(batch[self._text_column]))
        failed = [isinstance(answer, ArenaError) for answer in answers]
        label = [None if bad else answer.label for answer, bad in zip(answers, failed)]
        confidence = [numpy.nan if bad else answer.confidence for answer, bad in zip(answers, failed)]
        error = [str(answer) if bad else None for answer, bad in zip(answers, failed)]
        added = (numpy.array(label, object), numpy.array(confidence, numpy.float32), numpy.array(error, object))
        return batch | dict(zip(ADDED, added))


def run(
    files: list[Path],
    folder: Path,
    output: Path,
    workers: int,
    text_column: str | None = None,
    base_model: str | None = None,
) -> int:
    """Score the rows of .parquet, .csv or .jsonl files, all of one kind; returns their number. Raises ArenaError."""
    if importlib.util.find_spec("ray") is None:
        raise RecipeError('Scoring runs on Ray, which is not installed: pip install "ray[data]" aiohttp.')
    adapter, base = exporting.read(folder, base_model)
    column = _check(files, output, text_column)
    import ray

    ray.init(
        # On this machine alone: a core for each worker and one that reads and writes, or all would wait for it.
        num_cpus=None if os.environ.get("RAY_ADDRESS") or ray.is_initialized() else workers + 1,
        ignore_reinit_error=True,
        log_to_driver=False,
        include_dashboard=False,
        # Workers import this project, wherever they are started.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}},
    )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = sys.stderr.isatty()
    read = {".parquet": ray.data.read_parquet, ".csv": ray.data.read_csv, ".jsonl": ray.data.read_json}
    rows = read[files[0].suffix]([str(file.resolve()) for file in files])
    # A block is one batch: of several in a block Ray may give back a later one first.
    scored = rows.repartition(target_num_rows_per_block=ROWS).map_batches(
        Scorer,
        fn_constructor_args=(str(adapter.folder.resolve()), base.id, column),
        batch_size=None,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        max_restarts=-1,
        max_task_retries=-1,
    )
    with explain_disk_errors("score again"):
        scored.write_parquet(str(output.resolve()))
    return ray.data.read_parquet(str(output.resolve())).count()


def _check(files: list[Path], output: Path, text_column: str | None) -> str:
    """The column with the texts. Raises DataError for what would fail in a worker, hours later."""
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(f"There is no file {missing[0]}: check the path.")
    kinds = {file.suffix for file in files}
    if len(kinds) > 1 or not kinds <= {".parquet", ".csv", ".jsonl"}:
        raise DataError(f"Files of {', '.join(sorted(kinds))} are given: take one of .parquet, .csv and .jsonl.")
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} holds files already: name another --output, or delete it.")
    columns = next(tables.parts(files[0])).columns
    if taken := set(columns) & set(ADDED):
        raise DataError(f"{files[0].name} has a column {sorted(taken)[0]} already: rename it.")
    usual = usual_columns(columns, TEXT_COLUMNS)
    if text_column is None and not usual:
        raise DataError(f"{files[0].name} has no column named like a text: name it with --text-column.")
    if text_column is not None and text_column not in columns:
        raise DataError(unknown("column", text_column, columns))
    return text_column or usual[0]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--adapter", required=True, help="a folder, or a name in adapters/")
    parser.add_argument("--output", required=True, type=Path, help="a new folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, of one core each")
    parser.add_argument("--base-model", help="where the adapter is of a local one: its folder")
    parser.add_argument("--text-column", help="column with the text (default: guessed)")
    options = parser.parse_args(argv)
    named = Path(options.adapter)
    start = time.monotonic()
    try:
        folder = named if named.is_dir() else store.FOLDER / named
        rows = run(options.files, folder, options.output, options.workers, options.text_column, options.base_model)
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    print(
        f"{options.output}: {rows:,} rows in {seconds:,.0f} s, {rows / seconds:,.0f} a second, workers' start included"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
