"""The helpers of the tests themselves."""

import subprocess

import psutil
import pytest
from conftest import running_process, wait_until


def test_a_failing_test_leaves_no_process_not_even_one_in_a_session_of_its_own():
    found: list[psutil.Process] = []

    def fails() -> None:
        command = "setsid sleep 1000 & sleep 1000 & wait"
        with running_process(command, shell=True, stdout=subprocess.DEVNULL) as process:
            shell = psutil.Process(process.pid)
            found.extend([shell, *wait_until(lambda: len(shell.children()) == 2 and shell.children())])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    _, alive = psutil.wait_procs(found, timeout=30)
    assert len(found) == 3
    assert alive == []
