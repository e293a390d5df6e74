"""What can be wrong with a text before its names mean anything: codes 1xx."""

from __future__ import annotations

from dataclasses import dataclass

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnexpectedCharacter(Diagnostic):
    """A character that no part of the language begins with.

    Cause: a typing mistake, or a text pasted from a typeset page, where quotes, minus
    signs and multiplication signs are other characters than those of the keyboard.

    Fails:

        lora(q, r=8 ^ 2)

    Fix: write the plain character: `*` for a product, `-` for a minus, `"` around a
    text.
    """

    code = "PEFT101"
    title = "unexpected character"
    label = "{shown} means nothing here"
    help = "{hint}"

    shown: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnexpectedToken(Diagnostic):
    """A word or sign that cannot stand where it stands.

    Cause: something before it is missing or one too many (a comma, a closing bracket,
    the parentheses of a method), or a keyword is misspelt.

    Fails:

        lora(q v, r=8)

    Fix: the label says what could stand there: `lora(q, v, r=8)`.
    """

    code = "PEFT102"
    title = "unexpected {found}"
    label = "expected {expected}"
    help = "{hint}"

    found: str
    expected: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnexpectedEnd(Diagnostic):
    """The text, or one of its items, ends before it is complete.

    Cause: the last line was not finished.

    Fails:

        lora(q, v) +

    Fix: add what the label says, or take away the sign that asks for more.
    """

    code = "PEFT103"
    title = "unexpected end"
    label = "expected {expected} after this"
    help = "{hint}"

    expected: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UnclosedBracket(Diagnostic):
    """A `(`, `[` or `{` that is never closed.

    Cause: its partner is missing, or another kind of bracket stands in its place. The
    caret points at the bracket that stays open.

    Fails:

        lora(q, v, r=8

    Fix: close it where its list or block ends.
    """

    code = "PEFT104"
    title = "unclosed `{opening}`"
    label = "this `{opening}` is never closed"
    notes = ("{instead}",)
    help = "add a `{closing}`"

    opening: str
    closing: str
    instead: str = ""


@dataclass(frozen=True, kw_only=True)
class UnopenedBracket(Diagnostic):
    """A closing bracket with no opening one before it.

    Cause: one bracket too many, often after an edit.

    Fails:

        lora(q, v))

    Fix: remove it, or add the opening bracket.
    """

    code = "PEFT105"
    title = "unopened `{closing}`"
    label = "this `{closing}` closes nothing"

    closing: str


@dataclass(frozen=True, kw_only=True)
class UnterminatedString(Diagnostic):
    """A text in quotes that does not end on its line.

    Cause: the closing `"` is missing.

    Fails:

        lora("*.c_attn, r=8)

    Fix: close the quotes; a text never runs over the end of a line.
    """

    code = "PEFT106"
    title = "unterminated text"
    label = 'no closing `"` on this line'


@dataclass(frozen=True, kw_only=True)
class TooDeep(Diagnostic):
    """Brackets or operations nested more deeply than the compiler follows.

    Cause: a generated text, or one meant to exhaust the compiler. The limit keeps every
    later stage within bounds that can be stated.

    Fails: 65 brackets inside each other, or an equation of more than 100 summands in
    one chain.

    Fix: name parts of an equation (`V = W + B @ A`), or drop needless brackets. A sum
    of methods in a spec may be as long as you like.
    """

    code = "PEFT107"
    title = "nested too deeply"
    label = "over {limit} {what} deep here"
    help = "{hint}"

    limit: int
    what: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class TooLarge(Diagnostic):
    """A text larger than the compiler reads.

    Cause: a file that is no spec, or a generated one. A text may have 262,144
    characters and 65,536 words and signs.

    Fails: a weight file renamed to `x.peft`.

    Fix: split the text with `use`, or pass the file that was meant.
    """

    code = "PEFT108"
    title = "the text is too large"
    label = "more than {limit} {unit}"

    limit: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class NumberTooLong(Diagnostic):
    """A number with more digits than any size or rate has.

    Cause: a typing mistake. A number has at most 18 digits and is finite.

    Fails:

        lora(q, r=1000000000000000000000)

    Fix: write the number that was meant; `1e-4` for small ones.
    """

    code = "PEFT109"
    title = "the number is too long"
    label = "{problem}"

    problem: str


@dataclass(frozen=True, kw_only=True)
class DuplicateArgument(Diagnostic):
    """The same knob given twice in one pair of parentheses.

    Cause: an edit that left the old value behind. Neither value is taken silently.

    Fails:

        lora(q, v, r=8, r=16)

    Fix: keep one of them.
    """

    code = "PEFT110"
    title = "`{name}` is given twice"
    label = "`{name}` has a value already"
    help = "keep one of them"

    name: str


@dataclass(frozen=True, kw_only=True)
class SeveralSpecs(Diagnostic):
    """A file with more than one expression to compile.

    Cause: two specs below each other. A file compiles to one; which one would be a
    guess.

    Fails:

        lora(q, v)
        adapter(ffn)

    Fix: join them with `+` to use both, or name them: `spec a() = lora(q, v)`.
    """

    code = "PEFT111"
    title = "several specs in one file"
    label = "a second expression"
    notes = ("the first stands on line {first}",)
    help = "join them with `+`, or name them: `spec NAME() = ...`"

    first: int


@dataclass(frozen=True, kw_only=True)
class ReservedWord(Diagnostic):
    """A word of the language used as a name.

    Cause: a knob, tensor, site or method was given the name of a keyword.

    Fails:

        let where = 8

    Fix: choose another name. The words are: method, spec, let, use, on, where, or,
    param, buffer.
    """

    code = "PEFT112"
    title = "`{word}` is a word of the language"
    label = "expected a name"
    help = "choose another name, such as `{word}_`"

    word: str


@dataclass(frozen=True, kw_only=True)
class NotText(Diagnostic):
    """A file that holds no text.

    Cause: the file is binary, or saved in an encoding other than UTF-8.

    Fails: a `.peft` file saved as UTF-16, or one with a zero byte.

    Fix: save it as UTF-8, or pass the file that was meant.
    """

    code = "PEFT113"
    title = "not a text"
    label = "{problem}"
    notes = ("{place}",)
    help = "a .peft file is UTF-8 text"

    problem: str
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class UnknownBinder(Diagnostic):
    """An index introduced by a word that introduces none.

    Cause: `name[k: n](...)` repeats its body over k; only the words sum, mean, prod,
    blockdiag, blockgrid, concat and concat_cols do that.

    Fails:

        method m(n = 4) on linear {
          param Q[n, out/n, out/n] = 0
          W' = blockdaig[k: n](Q[k]) @ W
        }

    Fix: use one of those words.
    """

    code = "PEFT114"
    title = "unknown binder `{word}`"
    label = "`{word}` introduces no index"
    notes = ("binders: {known}",)
    help = "{hint}"

    word: str
    known: str
    hint: str = ""
