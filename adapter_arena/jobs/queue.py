"""The trainings of a folder, and their order: one runs at a time."""

from pathlib import Path

from adapter_arena.jobs.job import Job


def jobs_in(root: Path) -> list[Job]:
    """Return the trainings in the folder, the newest first."""
    found = []
    for path in root.glob("*/job.json"):
        try:
            found.append(Job(path.parent))
        except FileNotFoundError:  # deleted since it was listed
            continue
    return sorted(found, key=lambda job: job.choices.created, reverse=True)


def ahead(job: Job) -> int:
    """Return how many trainings run or have waited longer than this one."""
    own = (job.saved.queued_at, job.id)
    number = 0
    for other in jobs_in(job.folder.parent):
        if other.id == job.id or not other.state.is_active:
            continue
        saved = other.saved
        if saved.started_at or (saved.queued_at, other.id) < own:
            number += 1
    return number
