"""Encoders of text; with the encoder-decoders."""

from __future__ import annotations

from tests.families.zoo import seq2seq
from tests.families.zoo.case import GROUPED, LAYERS, MAIN, Case

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
    "funnel": Case(
        "FunnelForMaskedLM",
        "FunnelConfig",
        {
            "vocab_size": 96,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 48,
        },
        attentions=_EAGER,
        quick=True,
        notes="Queries are pooled from layer to layer. Attentions are `einsum`s of "
        "another layout: their linears have roles, they themselves are reported, and "
        "so are the parameters of relative positions.",
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
    "longformer": Case(
        "LongformerForMaskedLM",
        "LongformerConfig",
        {**MAIN, "attention_window": 4},
        attentions=_EAGER,
        notes="The number of global tokens depends on the mask: refused.",
    ),
    "megatron-bert": Case(
        "MegatronBertForMaskedLM", "MegatronBertConfig", MAIN, attentions=_EAGER
    ),
    "mobilebert": Case(
        "MobileBertForMaskedLM",
        "MobileBertConfig",
        {
            **_NARROW,
            "intra_bottleneck_size": 16,
            "true_hidden_size": 16,
        },
        quick=True,
        notes="A layer is one branch around its attention and four feed-forwards: the "
        "attention has no edge. The head's matrix is put together from two: reported.",
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
    "nystromformer": Case(
        "NystromformerForMaskedLM",
        "NystromformerConfig",
        {**MAIN, "segment_means_seq_len": 8, "num_landmarks": 4},
        attentions=_EAGER,
        notes="Its own mask does not fit its landmarks where it is traced: refused.",
    ),
    "nomic-bert": Case("NomicBertForMaskedLM", "NomicBertConfig", MAIN),
    "rembert": Case(
        "RemBertForMaskedLM",
        "RemBertConfig",
        {**MAIN, "input_embedding_size": 16, "output_embedding_size": 24},
        attentions=_EAGER,
    ),
    "reformer": Case(
        "ReformerForMaskedLM",
        "ReformerConfig",
        {},
        attentions=_EAGER,
        notes="Hashes by numbers of its own: refused.",
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
    "squeezebert": Case(
        "SqueezeBertForMaskedLM",
        "SqueezeBertConfig",
        {**MAIN, "embedding_size": 32},
        attentions=_EAGER,
        quick=True,
        notes="Its linears are grouped convolutions over one token, channels first: "
        "reported, only norms, tables, head and blocks are sites.",
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
    "xlnet": Case(
        "XLNetLMHeadModel",
        "XLNetConfig",
        {
            "vocab_size": 96,
            "d_model": 32,
            "n_layer": LAYERS,
            "n_head": 4,
            "d_inner": 48,
        },
        attentions=_EAGER,
        device="cpu",
        notes="Its attention multiplies by parameters with an axis for heads, in "
        "`einsum`s: reported, no linears.",
    ),
    "yoso": Case(
        "YosoForMaskedLM",
        "YosoConfig",
        MAIN,
        attentions=_EAGER,
        notes="Attends by an autograd function that the tracer does not follow: "
        "refused.",
    ),
}

_BASES = {
    "albert": Case(
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**MAIN, "embedding_size": 16},
        quick=True,
    ),
    "bert": Case("BertModel", "BertConfig", MAIN, quick=True),
    "bert-classifier": Case(
        "BertForSequenceClassification", "BertConfig", MAIN, quick=True
    ),
    "bert-mlm": Case("BertForMaskedLM", "BertConfig", MAIN, quick=True),
    "roberta": Case(
        "RobertaForSequenceClassification", "RobertaConfig", MAIN, quick=True
    ),
}

CASES = {**_BASES, **_ENCODERS, **seq2seq.CASES}
