"""Former name of `checkpoints`."""

from adapter_arena.train.checkpoints import FOLDER, check_data, last_checkpoint  # noqa: F401 # alias
from adapter_arena.train.checkpoints import mark_complete as make_whole  # noqa: F401 # alias
from adapter_arena.train.checkpoints import read_progress as known  # noqa: F401 # alias
from adapter_arena.train.checkpoints import run_folder as held  # noqa: F401 # alias
