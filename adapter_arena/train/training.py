"""Former home of what is in `run`, `trainer`, `model`, `arguments` and `callbacks` now."""

from adapter_arena.train import arguments
from adapter_arena.train.arguments import check_machine, compute_type  # noqa: F401 # alias
from adapter_arena.train.callbacks import Progress  # noqa: F401 # alias
from adapter_arena.train.model import build, count_parameters  # noqa: F401 # alias
from adapter_arena.train.model import count_trainable as trainable_params  # noqa: F401 # alias
from adapter_arena.train.model import save as _save  # noqa: F401 # alias
from adapter_arena.train.run import measure_again as measure  # noqa: F401 # alias
from adapter_arena.train.run import train as run  # noqa: F401 # alias
from adapter_arena.train.run import validate, without_paths  # noqa: F401 # alias
from adapter_arena.train.trainer import EncodedRows as Encoded  # noqa: F401 # alias


def _arguments(recipe, base, folder, rows, report_to):  # alias
    return arguments.build(recipe, folder, arguments.Schedule(rows, report_to))
