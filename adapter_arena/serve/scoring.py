"""Score a dataset of any size with one adapter, on one machine or a Ray cluster.

    pip install "ray[data]" aiohttp
    python -m adapter_arena.serve.scoring reviews/*.parquet --adapter minilm-imdb-qlora --output scored --workers 8

Ray Data reads the files in blocks, sends them to the workers in order, and sends the blocks of a worker that died to
another one. Each worker is a process with one engine. `--output` gets Parquet files whose names sort in the order of the
rows, with the columns of the input and predicted_label, confidence and error.
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

from adapter_arena.adapters import store
from adapter_arena.data import pairs, tables
from adapter_arena.data.labels import TEXT_COLUMNS, choose_column
from adapter_arena.errors import ArenaError, DataError, RecipeError
from adapter_arena.files import explain_disk_errors
from adapter_arena.models import bases
from adapter_arena.serve.engine import Engine

BATCH_ROWS = 2048
"""Rows per call of a worker: seconds of work, so that little is repeated if a worker dies and all workers get some."""
SUFFIXES = (".parquet", ".csv", ".jsonl")
ADDED_COLUMNS = ("predicted_label", "confidence", "error")


class Scorer:
    """A worker: an engine with the adapter."""

    def __init__(self, folder: str, base: str, text_columns: list[str]):
        self._text_columns = text_columns
        self._engine = Engine(bases.find(base))
        self._engine.add_folder(Path(folder))
        self._engine.merge(Path(folder).name)

    def __call__(self, batch: dict[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
        """Return the batch with its answers; a row without an answer has the reason in `error`."""
        columns = [list(batch[column]) for column in self._text_columns]
        answers = self._engine.predict(columns[0] if len(columns) == 1 else list(zip(*columns)))
        label = numpy.full(len(answers), None, dtype=object)
        confidence = numpy.full(len(answers), numpy.nan, dtype=numpy.float32)
        error = numpy.full(len(answers), None, dtype=object)
        for row, answer in enumerate(answers):
            if isinstance(answer, ArenaError):
                error[row] = str(answer)
            else:
                label[row] = answer.label
                if answer.confidence is not None:
                    confidence[row] = answer.confidence
        return batch | dict(zip(ADDED_COLUMNS, (label, confidence, error)))


def run(
    files: list[Path],
    folder: Path,
    output: Path,
    *,
    workers: int,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    base_model: str | None = None,
) -> int:
    """Score the rows of .parquet, .csv or .jsonl files, all of one kind, and return their number. Raises ArenaError."""
    if importlib.util.find_spec("ray") is None:
        raise RecipeError('Scoring needs Ray, which is not installed: pip install "ray[data]" aiohttp.')
    adapter, base = store.read_with_base(folder, base_model)
    columns = _text_columns(files, output, text_column, text_pair_column, bool(adapter.takes_pairs))
    import ray

    has_cluster = "RAY_ADDRESS" in os.environ or ray.is_initialized()
    ray.init(
        # On this machine only: a core for each worker and one that reads and writes, or all would wait for it.
        num_cpus=None if has_cluster else workers + 1,
        ignore_reinit_error=True,
        log_to_driver=False,
        include_dashboard=False,
        # Workers import this project, wherever they are started.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}},
    )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = sys.stderr.isatty()
    readers = {".parquet": ray.data.read_parquet, ".csv": ray.data.read_csv, ".jsonl": ray.data.read_json}
    rows = readers[files[0].suffix]([str(file.resolve()) for file in files])
    # A block is one batch: if it were several, Ray might return a later one first.
    scored = rows.repartition(target_num_rows_per_block=BATCH_ROWS).map_batches(
        Scorer,
        fn_constructor_args=(str(adapter.folder.resolve()), base.id, columns),
        batch_size=None,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        max_restarts=-1,
        max_task_retries=-1,
    )
    with explain_disk_errors("score again"):
        scored.write_parquet(str(output.resolve()))
    return ray.data.read_parquet(str(output.resolve())).count()


def _text_columns(
    files: list[Path], output: Path, wanted: str | None, wanted_pair: str | None, takes_pairs: bool
) -> list[str]:
    """Return the column with the texts, or both of pairs. Raises DataError for what would fail in a worker, hours later."""
    problem = _path_problem(files, output)
    if problem:
        raise DataError(problem)
    columns = next(tables.iter_frames(files[0])).columns
    taken = sorted(set(columns) & set(ADDED_COLUMNS))
    if taken:
        raise DataError(f"{files[0].name} has a column {taken[0]} already: rename it.")
    if takes_pairs:
        wanted, wanted_pair = pairs.choose(list(columns), wanted, wanted_pair)
        if wanted_pair is None:
            raise DataError("The adapter classifies pairs: name the second text with --text-pair-column.")
    elif wanted_pair:
        raise DataError("The adapter classifies single texts: leave out --text-pair-column.")
    first = choose_column("text", columns, wanted, TEXT_COLUMNS)
    return [first, wanted_pair] if wanted_pair else [first]


def _path_problem(files: list[Path], output: Path) -> str | None:
    for file in files:
        if not file.is_file():
            return f"There is no file {file}: check the path."
    suffixes = {file.suffix for file in files}
    if len(suffixes) > 1 or not suffixes <= set(SUFFIXES):
        return f"The files are {', '.join(sorted(suffixes))}: give only .parquet, only .csv or only .jsonl files."
    if output.exists() and any(output.iterdir()):
        return f"{output} contains files already: name another --output, or delete it."
    return None


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--adapter", required=True, help="a folder, or a name in adapters/")
    parser.add_argument("--output", required=True, type=Path, help="a new folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, with one core each")
    parser.add_argument("--base-model", help="folder of a local base model, if the adapter is for one")
    parser.add_argument("--text-column", help="column with the texts (default: guessed)")
    parser.add_argument("--text-pair-column", help="column with the second texts of pairs (default: guessed)")
    options = vars(parser.parse_args(argv))
    folder = Path(options.pop("adapter"))
    if not folder.is_dir():
        folder = store.FOLDER / folder
    start = time.monotonic()
    try:
        rows = run(folder=folder, **options)
    except ArenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    rate = rows / seconds
    print(f"{options['output']}: {rows:,} rows in {seconds:,.0f} s, {rate:,.0f} per second, including the start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
