"""Models that read images or sound, alone or beside text."""

from __future__ import annotations

from typing import Any

import torch

from tests.families.zoo.case import LAYERS, MAIN, Case

VIT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
    "num_labels": 5,
}
SPEECH: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "conv_dim": (24, 24),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    # What is left out at random is chosen by the values of tensors.
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}
TOWER: dict[str, Any] = {
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 5,
    "image_size": 24,
    "patch_size": 8,
}
PAIR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
STAGES: dict[str, Any] = {
    "num_encoder_blocks": 2,
    "depths": [2, 1],
    "hidden_sizes": [8, 16],
    "sr_ratios": [2, 1],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [3, 2],
    "num_labels": 5,
}
RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [1, 1],
    "layer_type": "basic",
    "out_features": ["stage2"],
}
EAGER = ("eager",)


def codes_and_text(model: Any) -> dict[str, Any]:
    """Two rows of codes for each of two sounds, and what a text encoder gave."""
    like = next(model.parameters())
    codes = like.new_ones((4, 8), dtype=torch.long)
    return {"input_ids": codes, "encoder_hidden_states": like.new_ones((2, 6, 32))}


def images_in_text(model: Any) -> dict[str, Any]:
    """Each image stands for nine tokens."""
    like = next(model.parameters())
    ids = like.new_full((2, 12), model.config.image_token_id, dtype=torch.long)
    ids[:, :3] = 7
    return {"input_ids": ids, "pixel_values": like.new_ones((2, 3, 24, 24))}


CASES = {
    "ast": Case(
        "ASTForAudioClassification",
        "ASTConfig",
        {**VIT, "image_size": None, "max_length": 32, "num_mel_bins": 24},
        notes="A spectrogram is read as an image of one channel.",
    ),
    "bark": Case(
        "BarkSemanticModel",
        "BarkSemanticConfig",
        {
            "block_size": 64,
            "input_vocab_size": 96,
            "output_vocab_size": 90,
            "num_layers": LAYERS,
            "num_heads": 4,
            "hidden_size": 32,
        },
        attentions=EAGER,
        generates=False,
        notes="The mask is stored as a buffer, whose values are not known without"
        " weights: later tokens are taken to be hidden.",
    ),
    "beit": Case(
        "BeitForImageClassification",
        "BeitConfig",
        {**VIT, "use_relative_position_bias": True, "layer_scale_init_value": 0.1},
        notes="What a sublayer adds is scaled for each channel (layer scale); a bias of"
        " relative positions for each layer, which is no site.",
    ),
    "blip": Case(
        "BlipForConditionalGeneration",
        "BlipConfig",
        {"text_config": {**MAIN, "encoder_hidden_size": 40}, "vision_config": TOWER},
        attentions=EAGER,
        notes="The image is the encoder of a text decoder.",
    ),
    "clip": Case(
        "CLIPModel",
        "CLIPConfig",
        {"text_config": MAIN, "vision_config": TOWER, "projection_dim": 20},
        notes="Two towers, whose layers have the same numbers: select by path.",
    ),
    "clip-vision": Case(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**TOWER, "projection_dim": 20},
    ),
    "deit": Case(
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        VIT,
        notes="Two heads, so neither is told.",
    ),
    "detr": Case(
        "DetrForObjectDetection",
        "DetrConfig",
        {
            **PAIR,
            "num_queries": 7,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": RESNET,
        },
        attentions=EAGER,
        notes="Training is refused: a check of values decides what runs.  Positions are"
        " added to what queries and keys are made from, so self-attention"
        " has no tap; the backbone of convolutions has no sites.",
    ),
    "dinov2": Case(
        "Dinov2ForImageClassification", "Dinov2Config", {**VIT, "mlp_ratio": 2}
    ),
    "dinov3": Case(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**VIT, "use_gated_mlp": True, "num_register_tokens": 2},
    ),
    "hubert": Case(
        "HubertForCTC",
        "HubertConfig",
        {**SPEECH, "do_stable_layer_norm": True, "feat_extract_norm": "layer"},
        device="cpu",
    ),
    "llava": Case(
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {**MAIN, "model_type": "llama"},
            "vision_config": {**TOWER, "model_type": "clip_vision_model"},
            "image_token_id": 95,
            "vision_feature_layer": -1,
        },
        inputs=images_in_text,
        notes="How many tokens an image takes is known to the processor alone: give"
        " `inputs=` to reach the vision tower, else the text decoder alone is seen.",
    ),
    "musicgen": Case(
        "MusicgenForCausalLM",
        "MusicgenDecoderConfig",
        {
            **MAIN,
            "ffn_dim": 48,
            "num_codebooks": 2,
            "layerdrop": 0.0,
            "pad_token_id": 96,
        },
        inputs=codes_and_text,
        generates=False,
        notes="One head for each codebook, so none is told.  Give `inputs=`: there is a"
        " row of codes for each codebook.",
    ),
    "patchtst": Case(
        "PatchTSTForPrediction",
        "PatchTSTConfig",
        {
            "num_input_channels": 3,
            "context_length": 20,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 32,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "prediction_length": 5,
        },
        notes="Norms over the batch, which are no sites.",
    ),
    "pvt_v2": Case(
        "PvtV2ForImageClassification",
        "PvtV2Config",
        {**STAGES, "image_size": 32},
        attentions=EAGER,
        layers=3,
        notes="Layers are numbered on over the stages; keys and values come from fewer"
        " tokens, and a convolution of each channel is inside the feed-forward.",
    ),
    "segformer": Case(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {**STAGES, "decoder_hidden_size": 20},
        layers=3,
        notes="As pvt_v2.",
    ),
    "siglip": Case(
        "SiglipModel",
        "SiglipConfig",
        {"text_config": {**MAIN, "projection_size": 40}, "vision_config": TOWER},
        notes="The image is pooled by an attention of torch's own module, whose packed"
        " projections are told apart.",
    ),
    "speech_to_text": Case(
        "Speech2TextForConditionalGeneration",
        "Speech2TextConfig",
        {
            **PAIR,
            "vocab_size": 96,
            "input_feat_per_channel": 20,
            "conv_channels": 24,
            "max_source_positions": 60,
            "max_target_positions": 30,
        },
        attentions=EAGER,
    ),
    "swin": Case(
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "mlp_ratio": 1.5,
            "num_labels": 5,
        },
        layers=4,
        notes="Attention inside windows; layers are numbered on over the stages.",
    ),
    "timesformer": Case(
        "TimesformerForVideoClassification",
        "TimesformerConfig",
        {**VIT, "num_frames": 3},
        attentions=EAGER,
        notes="Each layer attends over time, then over space.",
    ),
    "videomae": Case(
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        {**VIT, "num_frames": 6, "tubelet_size": 2},
    ),
    "vit": Case("ViTForImageClassification", "ViTConfig", VIT, quick=True),
    "vit_mae": Case(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {
            **VIT,
            "decoder_hidden_size": 24,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 3,
            "decoder_intermediate_size": 40,
        },
        notes="The decoder reads the encoder's tokens, so its layers are numbered on.",
    ),
    "vit_msn": Case("ViTMSNForImageClassification", "ViTMSNConfig", VIT),
    "wav2vec2": Case(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        SPEECH,
        device="cpu",
        quick=True,
        notes="Training with `layerdrop` is refused: a drawn number decides what runs.",
    ),
    "wav2vec2-bert": Case(
        "Wav2Vec2BertForCTC",
        "Wav2Vec2BertConfig",
        {
            **{name: value for name, value in SPEECH.items() if "conv" not in name},
            "feature_projection_input_dim": 20,
        },
        attentions=EAGER,
        device="cpu",
        notes="As wav2vec2-conformer.",
    ),
    "wav2vec2-conformer": Case(
        "Wav2Vec2ConformerForCTC",
        "Wav2Vec2ConformerConfig",
        {**SPEECH, "position_embeddings_type": "relative"},
        device="cpu",
        notes="A layer is half a feed-forward, attention, convolution, half a"
        " feed-forward; both halves are `ffn`.",
    ),
    "wavlm": Case(
        "WavLMForCTC",
        "WavLMConfig",
        SPEECH,
        attentions=EAGER,
        device="cpu",
        notes="The attention of torch, traced into; a gated bias of positions.",
    ),
    "whisper": Case(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **PAIR,
            "vocab_size": 96,
            "num_mel_bins": 20,
            "max_source_positions": 14,
            "max_target_positions": 30,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        quick=True,
        notes="Convolutions before the encoder, whose tokens are always as many.",
    ),
    "yolos": Case(
        "YolosForObjectDetection",
        "YolosConfig",
        {**VIT, "image_size": [24, 40], "num_detection_tokens": 6},
        notes="Two heads of three linears each, so none is told.",
    ),
}
