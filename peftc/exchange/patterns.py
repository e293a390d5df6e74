"""PEFT's patterns: numbers that differ by module.

In: a number for each module, or a folder.  Out: the usual number and a pattern of the
others, or the number that a pattern gives a module.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftc.exchange.folder import Folder


def most_common(values: Iterable[Any]) -> Any:
    """The value that occurs most often, the first of several."""
    return Counter(values).most_common(1)[0][0]


def pattern(values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
    """The modules whose value is not the usual one."""
    return {module: value for module, value in values.items() if value != usual}


_PLAIN = re.compile(r"[\w.^$|()\\-]*")
_REPEATED = re.compile(r"\.\*|\\d\+|\[0-9\]\+")


def patterned(folder: Folder, name: str, module: str, usual: float) -> float:
    """The number that a pattern of PEFT gives a module: the first whose key matches.

    Keys are regular expressions of a stranger; those that could take forever to match
    are refused.
    """
    for key, value in folder.setting(name, dict[str, Any]()).items():
        parts = _REPEATED.split(key)
        if len(parts) > 4 or not all(map(_PLAIN.fullmatch, parts)):
            raise folder.refused(name, f"`{key[:80]}` is too intricate a pattern")
        try:
            matches = re.match(rf"(.*\.)?({key})$", module)
        except re.error:
            raise folder.refused(name, f"`{key[:80]}` is no pattern") from None
        if matches:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise folder.refused(name, "its values should be numbers")
            folder.check_number(name, value)
            return value
    return usual
