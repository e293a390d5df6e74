"""Encoders of text, and encoder-decoders."""

from __future__ import annotations

from tests.families.zoo.case import LAYERS, MAIN, Case

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

CASES = {
    "albert": Case(
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**MAIN, "embedding_size": 16},
        quick=True,
    ),
    "bart": Case("BartForConditionalGeneration", "BartConfig", _BART, quick=True),
    "bert": Case("BertModel", "BertConfig", MAIN, quick=True),
    "bert-classifier": Case(
        "BertForSequenceClassification", "BertConfig", MAIN, quick=True
    ),
    "bert-mlm": Case("BertForMaskedLM", "BertConfig", MAIN, quick=True),
    "roberta": Case(
        "RobertaForSequenceClassification", "RobertaConfig", MAIN, quick=True
    ),
    "t5": Case("T5ForConditionalGeneration", "T5Config", _T5, quick=True),
}
