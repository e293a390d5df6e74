"""Encoders of text, and encoder-decoders."""

from __future__ import annotations

from tests.families.zoo.case import GROUPED, LAYERS, MAIN, Case

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

_NARROW = {**MAIN, "embedding_size": 16}
_ESM = {**MAIN, "pad_token_id": 1, "mask_token_id": 3}
_XLM = {
    "emb_dim": 32,
    "n_layers": LAYERS,
    "n_heads": 4,
    "n_words": 96,
    "max_position_embeddings": 64,
}
_EAGER = ("eager",)

_ENCODERS = {
    "bert-generation": Case("BertGenerationEncoder", "BertGenerationConfig", MAIN),
    "big-bird": Case(
        "BigBirdForMaskedLM",
        "BigBirdConfig",
        {**MAIN, "attention_type": "original_full"},
        attentions=_EAGER,
        notes="With full attention; block-sparse attention is not told.",
    ),
    "camembert": Case("CamembertForMaskedLM", "CamembertConfig", MAIN),
    "convbert": Case(
        "ConvBertForMaskedLM",
        "ConvBertConfig",
        {**_NARROW, "conv_kernel_size": 3},
        attentions=_EAGER,
        quick=True,
        notes="Half the heads are made by a convolution whose kernel comes from the "
        "tokens; its linears have no role, its convolutions are reported.",
    ),
    "data2vec-text": Case("Data2VecTextForMaskedLM", "Data2VecTextConfig", MAIN),
    "deberta": Case(
        "DebertaForMaskedLM",
        "DebertaConfig",
        {
            **MAIN,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_biased_input": False,
        },
        attentions=_EAGER,
        quick=True,
        notes="Queries, keys and values are interleaved rows. The linears of relative "
        "positions have no role; their table is reported, as it enters no look-up.",
    ),
    "deberta-v2": Case(
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {
            **MAIN,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
        attentions=_EAGER,
        quick=True,
        notes="The query and key linears are also applied to the table of relative "
        "positions: two calls each, adapted alike. The table is reported.",
    ),
    "distilbert": Case(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": LAYERS,
            "n_heads": 4,
            "vocab_size": 96,
            "max_position_embeddings": 64,
        },
    ),
    "electra": Case("ElectraForMaskedLM", "ElectraConfig", _NARROW),
    "ernie": Case("ErnieForMaskedLM", "ErnieConfig", MAIN),
    "esm": Case(
        "EsmForMaskedLM", "EsmConfig", {**_ESM, "position_embedding_type": "rotary"}
    ),
    "esm-absolute": Case(
        "EsmForMaskedLM", "EsmConfig", {**_ESM, "position_embedding_type": "absolute"}
    ),
    "eurobert": Case("EuroBertForMaskedLM", "EuroBertConfig", GROUPED),
    "flaubert": Case(
        "FlaubertWithLMHeadModel",
        "FlaubertConfig",
        _XLM,
        attentions=_EAGER,
        device="cpu",
    ),
    "fnet": Case(
        "FNetForMaskedLM",
        "FNetConfig",
        {name: fact for name, fact in MAIN.items() if "attention" not in name},
        attentions=_EAGER,
        quick=True,
        notes="Mixes tokens by a Fourier transform: no attention, no weights there.",
    ),
    "ibert": Case(
        "IBertForMaskedLM",
        "IBertConfig",
        MAIN,
        attentions=_EAGER,
        notes="Unquantised. In training it branches on the range of its activations, "
        "which no graph can hold: refused.",
    ),
    "layoutlm": Case(
        "LayoutLMForMaskedLM",
        "LayoutLMConfig",
        {**MAIN, "max_2d_position_embeddings": 80},
        notes="Tables of boxes are no positions of tokens and have no role.",
    ),
    "luke": Case(
        "LukeForMaskedLM",
        "LukeConfig",
        {**MAIN, "entity_vocab_size": 20, "entity_emb_size": 16},
        attentions=_EAGER,
        notes="Without entities.",
    ),
    "megatron-bert": Case(
        "MegatronBertForMaskedLM", "MegatronBertConfig", MAIN, attentions=_EAGER
    ),
    "modernbert": Case("ModernBertForMaskedLM", "ModernBertConfig", MAIN, quick=True),
    "mpnet": Case(
        "MPNetForMaskedLM",
        "MPNetConfig",
        {**MAIN, "pad_token_id": 1},
        attentions=_EAGER,
        quick=True,
        notes="The table of relative positions, read once for all layers, has no role.",
    ),
    "nomic-bert": Case("NomicBertForMaskedLM", "NomicBertConfig", MAIN),
    "rembert": Case(
        "RemBertForMaskedLM",
        "RemBertConfig",
        {**MAIN, "input_embedding_size": 16, "output_embedding_size": 24},
        attentions=_EAGER,
    ),
    "roberta-prelayernorm": Case(
        "RobertaPreLayerNormForMaskedLM", "RobertaPreLayerNormConfig", MAIN
    ),
    "roformer": Case(
        "RoFormerForMaskedLM",
        "RoFormerConfig",
        _NARROW,
        attentions=_EAGER,
        notes="Its table of positions is frozen and rotates: it has no role.",
    ),
    "xlm": Case(
        "XLMWithLMHeadModel",
        "XLMConfig",
        _XLM,
        attentions=_EAGER,
        quick=True,
        device="cpu",
        notes="Padding is masked out of the residual after every layer.",
    ),
    "xlm-roberta": Case(
        "XLMRobertaForSequenceClassification", "XLMRobertaConfig", MAIN
    ),
    "xlm-roberta-xl": Case("XLMRobertaXLForMaskedLM", "XLMRobertaXLConfig", MAIN),
}

_BASES = {
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

CASES = {**_BASES, **_ENCODERS}
