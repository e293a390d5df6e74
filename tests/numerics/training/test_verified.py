"""`verify` of models whose training is controlled."""

from __future__ import annotations

import pytest

import peftc
from peftc.training import Run
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches


@pytest.mark.parametrize(
    ("spec", "at_first"),
    [
        ("far(up, down, prime=2)", "skipped"),
        ("diffprune(q, v, target=0.1)", "ok"),
        ("adalora(q, v)", "ok"),
        ("fishmask(q, v, keep=0.1)", "ok"),
    ],
)
def test_gradients_are_asked_for_once_the_plan_runs(spec: str, at_first: str) -> None:
    """Rows that nothing has chosen yet get none, and that is no failure."""
    model = peftc.compile(llama(), spec)
    verdicts = {check.name: check.verdict for check in model.peftc.verify()}
    assert verdicts["gradients"] == at_first
    Run(model, steps=4, calibration=batches()[:2])
    checks = model.peftc.verify()
    assert {check.verdict for check in checks} <= {"ok", "skipped"}
    assert {check.name: check.verdict for check in checks}["gradients"] == "ok"
