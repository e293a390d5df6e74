"""Codes that no text alone can produce, each with the test that does produce it."""

ELSEWHERE = {
    "PEFT108": "tests/unit/syntax/test_limits.py::test_too_large",
}
