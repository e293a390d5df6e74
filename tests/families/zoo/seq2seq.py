"""Encoder-decoders of text."""

from __future__ import annotations

from typing import Any

from tests.families.zoo.case import LAYERS, MAIN, OWN_HEADS, Case

_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
    "vocab_size": 96,
    "decoder_start_token_id": 0,
}
_BART = {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}
_TOKENS = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
}
_WINDOWED = {
    **{name: fact for name, fact in _BART.items() if name[:3] != "max"},
    **_TOKENS,
    "attention_window": 4,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
}
_TWO_TABLES = {
    **{name: fact for name, fact in _BART.items() if name != "vocab_size"},
    **_TOKENS,
    "langs": ["en", "de"],
    "src_vocab_size": 96,
    "tgt_vocab_size": 80,
}
_GEMMA = {**OWN_HEADS, "query_pre_attn_scalar": 8, "sliding_window": 16}
_PROPHETNET = {
    "vocab_size": 96,
    "hidden_size": 32,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_encoder_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_BERT = {**MAIN, "model_type": "bert"}
_EXPERTS = {"num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2}


def _barts(name: str, **facts: Any) -> Case:
    model = {"Marian": "MarianMTModel"}.get(name, f"{name}ForConditionalGeneration")
    return Case(model, f"{name}Config", {**_BART, **_TOKENS, **facts})


def _eager(model: str, config: str, facts: dict[str, Any], notes: str = "") -> Case:
    name = f"{model}ForConditionalGeneration"
    return Case(name, f"{config}Config", facts, attentions=("eager",), notes=notes)


CASES = {
    "bart": Case("BartForConditionalGeneration", "BartConfig", _BART, quick=True),
    "bert2bert": Case(
        "EncoderDecoderModel",
        "EncoderDecoderConfig",
        {
            "encoder": _BERT,
            "decoder": {**_BERT, "is_decoder": True, "add_cross_attention": True},
            "decoder_start_token_id": 1,
            "pad_token_id": 0,
        },
    ),
    "bigbird-pegasus": _eager(
        "BigBirdPegasus",
        "BigBirdPegasus",
        {**_BART, **_TOKENS, "attention_type": "original_full"},
        "With full attention; block-sparse attention is not told.",
    ),
    "blenderbot": _barts("Blenderbot"),
    "blenderbot-small": _barts("BlenderbotSmall"),
    "fsmt": _eager(
        "FSMT",
        "FSMT",
        _TWO_TABLES,
        "Branches on whether there is padding, which no graph can hold: refused.",
    ),
    "led": _eager(
        "LED",
        "LED",
        _WINDOWED,
        "The number of global tokens depends on the mask: refused.",
    ),
    "longt5": Case(
        "LongT5ForConditionalGeneration",
        "LongT5Config",
        {**_T5, "local_radius": 3},
        attentions=("eager",),
        device="cpu",
        notes="Needs a mask where it is traced. The encoder attends within blocks: its "
        "linears have their roles, the attentions themselves are reported.",
    ),
    "m2m-100": Case(
        "M2M100ForConditionalGeneration",
        "M2M100Config",
        {**_BART, **_TOKENS},
        notes="NLLB too. In training whole layers are dropped by chance (LayerDrop), "
        "which no graph can hold: refused unless both layerdrops are 0.",
    ),
    "marian": _barts("Marian"),
    "mbart": _barts("MBart"),
    "mt5": Case("MT5ForConditionalGeneration", "MT5Config", _T5),
    "mvp": _eager("Mvp", "Mvp", {**_BART, **_TOKENS}),
    "nllb-moe": _eager(
        "NllbMoe",
        "NllbMoe",
        {**_BART, **_TOKENS, **_EXPERTS},
        "Runs the experts that were chosen, which no graph can hold: refused.",
    ),
    "pegasus": _barts("Pegasus"),
    "plbart": _barts("PLBart"),
    "prophetnet": Case(
        "ProphetNetForConditionalGeneration",
        "ProphetNetConfig",
        _PROPHETNET,
        attentions=("eager",),
        quick=True,
        uncached="without a method, its cached generation is not recomputation either",
        notes="The decoder attends in several streams with the same linears: they have "
        "their roles, its self-attentions and whether it is causal are not told.",
    ),
    "switch-transformers": _eager(
        "SwitchTransformers",
        "SwitchTransformers",
        {**_T5, **_EXPERTS, "num_decoder_layers": LAYERS},
        "Runs the experts that were chosen, which no graph can hold: refused.",
    ),
    "t5": Case("T5ForConditionalGeneration", "T5Config", _T5, quick=True),
    "t5gemma": _eager(
        "T5Gemma",
        "T5Gemma",
        {"encoder": _GEMMA, "decoder": _GEMMA, "vocab_size": 96},
        "Each stack has a table of its own; the decoder's is tied to the head.",
    ),
    "umt5": Case("UMT5ForConditionalGeneration", "UMT5Config", _T5),
}
