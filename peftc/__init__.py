"""peftc: the compiler for parameter-efficient fine-tuning.

`compile` rewrites a model's forward by a spec, `plan` says what that would do, `load`
puts a saved adapter on its base.  Importing peftc imports no torch.
"""

from peftc.api import compile, load, plan
from peftc.diagnostics.core import Diagnostic, PeftcError
from peftc.diagnostics.explain import explain
from peftc.syntax.parse import parse_spec as parse

__all__ = [
    "Diagnostic",
    "PeftcError",
    "compile",
    "explain",
    "load",
    "parse",
    "plan",
]
