"""How text becomes tokens: a model's tokenizer, or bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from peftc.tuning.codec import codec_for
from tests.numerics.runtime.tiny import llama, refused

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"[UNK]": 0, "<s>": 1, "</s>": 2, "a": 3, "text": 4, "far": 99}


def tokenizer(folder: Path, template: str = "") -> str:
    """The folder of a tokenizer of words, which sets `template` around a text."""
    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    if template:
        special = [(name, WORDS[name]) for name in ("<s>", "</s>")]
        made.post_processor = TemplateProcessing(template, special_tokens=special)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    llama(layers=1).config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("template", "begin", "end"),
    [
        ("<s> $A </s>", (1,), (2,)),
        ("<s> $A", (1,), (2,)),
        ("$A </s>", (), (2,)),
        ("", (), (2,)),
    ],
)
def test_a_tokenizer_tells_what_is_around_a_text(
    template: str, begin: tuple[int, ...], end: tuple[int, ...], tmp_path: Path
) -> None:
    codec = codec_for(tokenizer(tmp_path, template), llama(layers=1))
    assert (codec.kind, codec.begin, codec.end) == ("tokenizer", begin, end)
    assert codec.pad == 0  # the model's, as the tokenizer has none
    assert codec.tokens("a text") == [3, 4]
    assert codec.text([1, 3, 4, 2]) == "a text"


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    codec = codec_for(tokenizer(tmp_path), llama(layers=1))
    with refused("PEFT676"):
        codec.tokens("far")


def test_bytes(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "vocab_size": 259,
        "bos_token_id": 256,
        "eos_token_id": None,
    }
    codec = codec_for(str(tmp_path), llama(layers=1, **facts))
    assert (codec.kind, codec.begin, codec.end) == ("bytes", (256,), ())
    assert codec.tokens("é") == [0xC3, 0xA9]
    assert codec.text([256, 0xC3, 0xA9, 257]) == "é"
    with refused("PEFT662"):
        codec_for(str(tmp_path), llama(layers=1, vocab_size=1000))
    with refused("PEFT676"):
        codec_for(str(tmp_path), llama(layers=1), as_bytes=True)
