"""What else the machine did meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftc.bench import machine
from peftc.bench.machine import is_busy, watched

LOOP = (
    "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: 0"
)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="nobody counts")
def test_another_process_is_noticed() -> None:
    with watched() as others:
        subprocess.run([sys.executable, "-c", LOOP], check=True)
    assert others[0] > machine.BUSY
    assert is_busy(others)


def test_where_nobody_counts_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_busy", lambda: None)
    with watched() as others:
        pass
    assert others == []
    assert not is_busy(others)


def test_a_busy_machine() -> None:
    assert is_busy([0.0, 1.5])
    assert not is_busy([0.1, 0.2])


def test_versions_and_processor_are_told() -> None:
    told = machine.machine()
    assert told["processor"]
    assert told["versions"]["torch"] != "not installed"
