"""Made-up inputs: of the sizes that a configuration says, of the kind of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from peftc.diagnostics.core import PeftcError
from peftc.sites.inputs import example_inputs

CLIP = hf.CLIPConfig(vision_config={"image_size": 32}, text_config={})


class Takes(nn.Module):
    """A model whose forward has these arguments."""

    def __init__(self, config: Any, main: str = "input_ids") -> None:
        super().__init__()
        self.config, self.main_input_name = config, main
        self.scale = nn.Parameter(torch.ones(1))


class Image(Takes):
    def forward(self, pixel_values: Any = None) -> None: ...


class Sound(Takes):
    def forward(self, input_values: Any) -> None: ...


class Features(Takes):
    def forward(self, input_features: Any, decoder_input_ids: Any = None) -> None: ...


class Both(Takes):
    def forward(self, input_ids: Any = None, pixel_values: Any = None) -> None: ...


class Other(Takes):
    def forward(self, latents: Any, **more: Any) -> None: ...


def sizes(model: nn.Module, **given: Any) -> dict[str, tuple[int, ...]]:
    made = example_inputs(model, given)
    return {name: tuple(value.shape) for name, value in made.items()}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (hf.ViTConfig(image_size=48, num_channels=1), (2, 1, 48, 48)),
        (hf.ViTConfig(image_size=(48, 80)), (2, 3, 48, 80)),
        (hf.SegformerConfig(), (2, 3, 64, 96)),
        (hf.TimesformerConfig(num_frames=5, image_size=48), (2, 5, 3, 48, 48)),
        (CLIP, (2, 3, 32, 32)),
    ],
)
def test_images_and_clips(config: Any, wanted: tuple[int, ...]) -> None:
    assert sizes(Image(config, "pixel_values")) == {"pixel_values": wanted}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (hf.Wav2Vec2Config(), (2, 13 * 320)),
        (hf.ASTConfig(max_length=40, num_mel_bins=24), (2, 40, 24)),
    ],
)
def test_sound(config: Any, wanted: tuple[int, ...]) -> None:
    assert sizes(Sound(config, "input_values")) == {"input_values": wanted}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (hf.WhisperConfig(max_source_positions=10, num_mel_bins=24), (2, 24, 20)),
        (hf.Speech2TextConfig(input_feat_per_channel=24), (2, 52, 24)),
    ],
)
def test_features_of_sound(config: Any, wanted: tuple[int, ...]) -> None:
    made = sizes(Features(config, "input_features"))
    assert made == {"input_features": wanted, "decoder_input_ids": (2, 6)}


def test_every_tower_gets_its_input() -> None:
    made = example_inputs(Both(CLIP))
    assert made["input_ids"].shape == (2, 8)
    assert made["input_ids"].dtype == torch.long
    assert made["pixel_values"].dtype == torch.float32


def test_images_that_tokens_stand_for_are_not_made_up() -> None:
    config = hf.LlavaConfig(vision_config=CLIP.vision_config)
    assert sizes(Both(config)) == {"input_ids": (2, 8)}


def test_given_inputs_replace_those_made_up() -> None:
    given = torch.zeros(1, 3)
    made = example_inputs(Both(CLIP), {"input_ids": given, "pixel_values": None})
    assert made["input_ids"] is given
    assert made["pixel_values"] is None


def test_what_cannot_be_made_up_is_named() -> None:
    """PEFT410."""
    with pytest.raises(PeftcError) as error:
        example_inputs(Other(hf.ViTConfig(), "latents"))
    (found,) = error.value.diagnostics
    assert found.code == "PEFT410"
    assert "`latents`" in str(found)
    assert sizes(Other(None, "latents"), latents=torch.ones(1, 4)) == {
        "latents": (1, 4)
    }


def test_inputs_are_of_the_kind_of_the_parameters() -> None:
    config, given = hf.ViTConfig(image_size=48), torch.ones(1)
    with torch.device("meta"):
        on_meta = Both(config).half()
    made = example_inputs(on_meta, {"input_ids": given})
    assert made["input_ids"].is_meta
    assert made["pixel_values"].dtype == torch.float16
    with FakeTensorMode():
        fake = Both(config)
    assert all(
        isinstance(value, FakeTensor)
        for value in example_inputs(fake, {"input_ids": given}).values()
    )
