"""Rows among the tokens: as good as tokens where their rows are the tokens' own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from peft import PromptTuningConfig, get_peft_model

import peftc
from peftc.runtime.arrangement import arrange
from peftc.sites.view import model_view
from tests.models import model, prepared, randomise, relative, tokens
from tests.numerics.matrix import FAMILIES, build
from tests.numerics.runtime.tiny import assert_same, refused, snapshot

if TYPE_CHECKING:
    from torch import Tensor

LITERAL = (5, 7, 9)
TEXT = " ".join(f"#{n}" for n in LITERAL)
CLOSE = 2e-5


def opt() -> Any:
    config = hf.OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        word_embed_proj_dim=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=128,
        max_position_embeddings=64,
    )
    return prepared(lambda: hf.OPTForCausalLM(config))


def roberta() -> Any:
    config = hf.RobertaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=128,
        max_position_embeddings=64,
    )
    return prepared(lambda: hf.RobertaForMaskedLM(config))


OTHERS = {"opt": opt, "roberta": roberta}
QUICK = ("llama", "bert", "t5")
LITERALLY = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow], id=name)
    for name in (*FAMILIES, *OTHERS)
]


def base(family: str) -> Any:
    if family in OTHERS:
        return OTHERS[family]()
    return build(family, torch.float32)


def adapted(family: str, spec: str = "") -> tuple[Any, Any]:
    """A model whose rows are the embeddings of tokens, and the base."""
    made = base(family)
    plain = copy.deepcopy(made)
    peftc.compile(made, spec or f'prompt(p=3, init="{TEXT}")')
    return made, plain


def with_literals(ids: Tensor, first: int = 0) -> Tensor:
    rows = torch.tensor(LITERAL).expand(ids.shape[0], -1)
    return torch.cat((ids[:, :first], rows, ids[:, first:]), 1)


def called(family: str, ids: Tensor, **more: Any) -> dict[str, Any]:
    found = {"input_ids": ids, **more}
    if FAMILIES.get(family) and FAMILIES[family].kind == "pair":
        found["decoder_input_ids"] = tokens(length=6, seed=4)
    return found


def is_encoder(family: str) -> bool:
    return family in ("bert", "roberta")


@pytest.mark.parametrize("family", LITERALLY)
def test_rows_of_tokens_are_these_tokens(family: str) -> None:
    made, plain = adapted(family)
    first = int(is_encoder(family))
    ids = tokens()
    mine = made(**called(family, ids, output_hidden_states=True))
    wanted = plain(**called(family, with_literals(ids, first)))
    logits = wanted.logits
    if FAMILIES.get(family) is None or FAMILIES[family].kind != "pair":
        logits = torch.cat((logits[:, :first], logits[:, first + 3 :]), 1)
    assert mine.logits.shape == logits.shape
    assert relative(mine.logits, logits) < CLOSE
    states = mine.get("encoder_hidden_states", mine.get("hidden_states"))
    assert {tuple(s.shape[:2]) for s in states} == {tuple(ids.shape)}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "t5", "roberta"])
def test_padding_on_the_right_changes_nothing(family: str) -> None:
    made, _ = adapted(family)
    ids, pad = tokens(), 1 if family == "roberta" else 0
    longer = torch.cat((ids, torch.full((2, 3), pad)), 1)
    mask = torch.ones_like(longer)
    mask[:, -3:] = 0
    wanted = made(**called(family, ids)).logits
    got = made(**called(family, longer, attention_mask=mask)).logits
    assert relative(got[:, : wanted.shape[1]], wanted) < CLOSE


@pytest.mark.parametrize(
    ("family", "at"),
    [
        ("llama", '"0:2, -1:1"'),
        *(
            pytest.param(*case, marks=[pytest.mark.slow])
            for case in (("gpt2", "2"), ("opt", "0"), ("t5", "0"))
        ),
    ],
)
def test_padding_on_the_left_changes_nothing(family: str, at: str) -> None:
    made, _ = adapted(family, f"prompt(p=3, init=vocab, at={at})")
    ids = tokens()
    longer = torch.cat((torch.zeros(2, 3, dtype=torch.long), ids), 1)
    mask = torch.ones_like(longer)
    mask[:, :3] = 0
    more: dict[str, Any] = {"attention_mask": mask}
    if family in ("llama", "gpt2"):
        more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    wanted = made(**called(family, ids)).logits
    got = made(**called(family, longer, **more)).logits
    assert relative(got[:, -wanted.shape[1] :], wanted) < CLOSE


def test_where_rows_stand() -> None:
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    found = arrange(real, ((0, 1), (-1, 2), (1, 1)))
    assert found.numbers.tolist() == [
        [-1, -1, 0, -1, 3, -1, -1, 1, 2],
        [0, -1, 3, -1, -1, 1, 2, -1, -1],
    ]
    kept = [[0, 1, 3, 5, 6], [1, 3, 4, 7, 8]]
    assert found.kept.tolist() == kept
    positions = torch.tensor([[1, 1, 0, 1, 2], [0, 1, 2, 3, 4]])
    assert found.positions(positions).tolist() == [
        [1, 1, 0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
    ]
    assert found.spread(real, 1).tolist() == [
        [0, 0, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 0, 0],
    ]


@pytest.mark.parametrize("at", [2])
def test_the_loss_is_of_the_tokens(at: int) -> None:
    made, plain = adapted("llama", f'prompt(p=3, at={at}, init="{TEXT}")')
    ids = tokens()
    labels = torch.cat((ids[:, :at], torch.full((2, 3), -100), ids[:, at:]), 1)
    wanted = plain(input_ids=with_literals(ids, at), labels=labels)
    got = made(input_ids=ids, labels=ids)
    torch.testing.assert_close(got.loss, wanted.loss)
    kept = [*range(at - 1), *([at + 2] if at else []), *range(at + 3, 12)]
    assert relative(got.logits, wanted.logits[:, kept]) < CLOSE


@pytest.mark.parametrize("keep", [1, 2, torch.tensor([0, 4])], ids=str)
def test_logits_that_are_kept(keep: Any) -> None:
    made, _ = adapted("llama")
    whole = made(input_ids=tokens()).logits
    wanted = whole[:, keep if isinstance(keep, torch.Tensor) else slice(-keep, None)]
    got = made(input_ids=tokens(), logits_to_keep=keep).logits
    torch.testing.assert_close(got, wanted)


def test_attentions_are_those_of_tokens() -> None:
    made = base("llama")
    made.set_attn_implementation("eager")
    plain = copy.deepcopy(made)
    peftc.compile(made, f'prompt(p=3, init="{TEXT}")')
    wanted = plain(input_ids=with_literals(tokens()), output_attentions=True)
    got = made(input_ids=tokens(), output_attentions=True)
    for one, other in zip(got.attentions, wanted.attentions, strict=True):
        torch.testing.assert_close(one, other[:, :, 3:, 3:], rtol=1e-4, atol=1e-5)


def test_a_tuple_stays_a_tuple() -> None:
    made, _ = adapted("llama")
    (logits, *_) = made(input_ids=tokens(), return_dict=False, use_cache=False)
    torch.testing.assert_close(logits, made(input_ids=tokens()).logits)


# --- generation ---------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True, "top_k": 5},
    "static": {"do_sample": False, "cache_implementation": "static"},
}


def generated(made: Any, **options: Any) -> Any:
    torch.manual_seed(3)
    return made.generate(
        max_new_tokens=4,
        return_dict_in_generate=True,
        output_scores=True,
        disable_compile=True,
        **options,
    )


@pytest.mark.parametrize(
    ("family", "way"),
    [
        ("t5", "greedy"),
        *(
            pytest.param(*case, marks=[pytest.mark.slow])
            for case in (
                *(("llama", way) for way in WAYS),
                *((name, "greedy") for name in ("gpt2", "opt", "bart")),
                *(("t5", way) for way in ("beam", "static")),
            )
        ),
    ],
)
def test_generation_goes_on_from_the_rows(family: str, way: str) -> None:
    made, plain = adapted(family)
    ids = tokens()
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    wider = torch.cat((mask[:, :0], mask), 1)
    rows = arrange(mask, ((0, 3),))
    literal = torch.cat((torch.tensor(LITERAL).expand(2, -1), ids), 1)
    given = {
        "input_ids": literal.gather(1, rows.order),
        "attention_mask": rows.spread(wider, 1),
    }
    wanted = generated(plain, **given, **WAYS[way])
    got = generated(made, input_ids=ids, attention_mask=mask, **WAYS[way])
    for one, other in zip(got.scores, wanted.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert torch.equal(got.sequences[:, -4:], wanted.sequences[:, -4:])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "at"), [("llama", 2), ("gpt2", 0), ("t5", 0)])
def test_a_cache_is_full_recomputation(family: str, at: int) -> None:
    made, _ = adapted(family, f"prompt(p=3, init=vocab, at={at})")
    ids = {"input_ids": tokens(), "do_sample": False}
    cached, again = generated(made, **ids), generated(made, **ids, use_cache=False)
    for one, other in zip(cached.scores, again.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_rows_behind_the_last_token_stay_behind_the_prompt() -> None:
    made, plain = adapted("llama", f'prompt(p=3, at=-1, init="{TEXT}")')
    literal = torch.cat((tokens(), torch.tensor(LITERAL).expand(2, -1)), 1)
    wanted = generated(plain, input_ids=literal, do_sample=False)
    got = generated(made, input_ids=tokens(), do_sample=False)
    assert torch.equal(got.sequences[:, -4:], wanted.sequences[:, -4:])
    with refused("PEFT445"):
        generated(made, input_ids=tokens(), do_sample=False, use_cache=False)


# --- another implementation, files, and giving back ----------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_peft_gives_the_same(family: str) -> None:
    task = {"llama": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM"}[family]
    config = PromptTuningConfig(
        task_type=task, num_virtual_tokens=4, num_transformer_submodules=1
    )
    theirs = get_peft_model(model(family), config).eval()
    ours = model(family)
    peftc.compile(ours, "prompt(p=4)")
    given = {"input_ids": tokens(), "attention_mask": torch.ones(2, 9).long()}
    if family == "t5":
        given["decoder_input_ids"] = tokens(length=6, seed=4)
    (mine,) = (p for p in ours.parameters() if p.requires_grad)
    table = theirs.get_parameter("prompt_encoder.default.embedding.weight")
    with torch.no_grad():
        mine.copy_(table)
    got, wanted = ours(**given).logits, theirs(**given).logits
    wanted = wanted[:, -got.shape[1] :]
    assert relative(got, wanted) < CLOSE
    got.square().mean().backward()
    wanted.square().mean().backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, table.grad, rtol=1e-4, atol=1e-6)


def test_an_adapter_is_saved_and_given_back(tmp_path: Any) -> None:
    made = model("llama")
    before = snapshot(made)
    peftc.compile(made, "prompt(p=4, init=vocab)")
    randomise(made)
    wanted = made(input_ids=tokens()).logits
    made.peftc.save(tmp_path)
    other = peftc.load(model("llama"), tmp_path)
    assert torch.equal(other(input_ids=tokens()).logits, wanted)
    twin = copy.deepcopy(made)
    assert torch.equal(twin(input_ids=tokens()).logits, wanted)
    twin.generate(input_ids=tokens(), max_new_tokens=2)
    with made.peftc.disabled():
        assert made(input_ids=tokens()).logits.shape == wanted.shape
    made.peftc.remove()
    assert_same(before, snapshot(made))


def test_counts_and_merging_are_said() -> None:
    plan = peftc.plan("prompt(p=10)", hf.LlamaConfig(**LLAMA))
    (rewrite,) = plan.rewrites
    assert plan.trainable == 640
    assert rewrite.merge.kind == "none"
    assert rewrite.merge.reason.startswith("its rows stand among the tokens")


LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "architectures": ["LlamaForCausalLM"],
}


# --- initial values -------------------------------------------------------------------


def rows_of(made: Any) -> Tensor:
    found: Tensor
    (found,) = (p for n, p in made.named_parameters() if ".peftc." in n)
    return found.detach()


def test_initial_values_come_from_the_vocabulary() -> None:
    made = model("llama")
    table = made.get_input_embeddings().weight
    peftc.compile(made, 'prompt(p=5, init="#5 #7 #9")', seed=4)
    assert torch.equal(rows_of(made), table[[5, 7, 9, 5, 7]])
    drawn = [model("llama") for _ in range(3)]
    for one, seed in zip(drawn, (1, 1, 2), strict=True):
        peftc.compile(one, "lora(q) + prompt(p=5, init=vocab)", seed=seed)
    first, same, other = (
        next(p for n, p in one.named_parameters() if n.endswith("prompt.P"))
        for one in drawn
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert all(any(torch.equal(row, word) for word in table) for row in first)


def test_a_text_needs_a_tokenizer() -> None:
    with refused("PEFT343"):
        peftc.compile(model("llama"), 'prompt(p=5, init="Classify:")')
    with refused("PEFT343"):
        peftc.compile(model("llama"), 'prompt(p=5, init="#500")')


# --- what is refused ------------------------------------------------------------------


def test_what_rows_cannot_be_put_among() -> None:
    made, _ = adapted("llama")
    ids = tokens()
    with refused("PEFT445"):
        made(inputs_embeds=torch.zeros(2, 9, 32))
    with refused("PEFT445"):
        made(input_ids=ids, attention_mask=torch.ones(2, 1, 9, 9))
    with refused("PEFT445"):
        made(input_ids=ids, another=torch.zeros(2, 9))


def test_states_of_an_encoder_without_rows_are_refused() -> None:
    made, plain = adapted("t5")
    given = {"input_ids": tokens(), "attention_mask": torch.ones(2, 9).long()}
    states = plain.get_encoder()(**given)
    decoder = {"decoder_input_ids": tokens(length=6, seed=4)}
    with refused("PEFT445"):
        made(encoder_outputs=states, **given, **decoder)
    states = made.get_encoder()(**given)
    whole = made(**given, **decoder).logits
    parts = made(encoder_outputs=states, **decoder, **given).logits
    torch.testing.assert_close(parts, whole)


def test_positions_run_out() -> None:
    with refused("PEFT342"):
        peftc.compile(model("gpt2"), "prompt(p=64)")


def test_images_have_no_tokens() -> None:
    config = hf.ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    vision = hf.ViTModel(config)
    assert "input" not in model_view(vision).roles
    with refused("PEFT203"):
        peftc.compile(vision, "prompt(p=4)")
