"""The requirements and the lock file belong together."""

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from adapter_arena.hub.deploy import SPACE_FILES


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_has_one_fitting_version_of_each_requirement(name):
    locked: dict[str, list[str]] = {}
    for pin in requirements("constraints.txt"):
        if pin.marker is None or pin.marker.evaluate():
            locked.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for wanted in requirements(name):
        [version] = locked[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted} is locked at {version}: renew it (CONTRIBUTING.md)"


def test_a_space_is_not_locked_so_that_it_keeps_its_own_torch():
    assert "requirements.txt" in SPACE_FILES
    assert "constraints.txt" not in SPACE_FILES
