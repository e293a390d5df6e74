"""Golden files are rewritten by people, never where CI is set."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.golden.case import HERE


def test_no_rewriting_where_ci_is_set() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--update-golden", "test_fmt.py"]
    done = subprocess.run(
        command,
        cwd=HERE,
        env={**os.environ, "CI": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "not rewritten where CI is set" in done.stderr
