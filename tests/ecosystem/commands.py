"""The command line as tests run it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from peftc.cli.main import app
from peftc.driver import make_plan
from peftc.plan.print import plan_text
from peftc.syntax.source import Source
from tests.views import toy

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "examples" / "tiny_llama")
CONFIG = str(ROOT / "examples" / "tiny_llama" / "config.json")
GOLDEN = ROOT / "tests" / "golden" / "cli"


def peftc(*args: str, text: str | None = None) -> Result:
    """Run a command; `text` is its standard input."""
    return CliRunner().invoke(app, list(args), input=text)


def ok(*args: str, text: str | None = None) -> Result:
    """Run a command that succeeds."""
    result = peftc(*args, text=text)
    assert result.exit_code == 0, result.output
    return result


def toy_plan(spec: str, folder: Path, name: str = "plan.txt") -> str:
    """The path of a plan for the toy model, which needs no torch."""
    path = folder / name
    path.write_text(plan_text(make_plan(Source("<spec>", spec), toy())))
    return str(path)


def lines(text: str) -> str:
    """Output without the blanks that fill lines up."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
