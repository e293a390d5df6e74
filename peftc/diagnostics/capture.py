"""Errors of loading a model and capturing its forward (400-429): exit code 3.

In: nothing.  Out: the diagnostic classes that `peftc.sites` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class ModelNotFound(Diagnostic):
    """MODEL is neither a folder, nor a config.json, nor a model on the hub.

    A folder must contain config.json.  A hub name is tried only if no file or folder
    of that name exists, and needs a network or a filled cache.

    Wrong:

        peftc plan spec.peft ./my-lama

    Right:

        peftc plan spec.peft ./my-llama
    """

    code: ClassVar[str] = "PEFT400"
    title: ClassVar[str] = "no such model"
    label: ClassVar[str] = "`{source}`: {reason}"
    help: ClassVar[str] = (
        "give a folder with config.json, a config.json, or the name of a hub model"
    )
    exit_code: ClassVar[int] = 3
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnreadableConfig(Diagnostic):
    """The model's config.json is not a readable JSON object with a `model_type`.

    Wrong (config.json):

        {"model_type": "llama", "hidden_size":

    Right:

        {"model_type": "llama", "hidden_size": 64}
    """

    code: ClassVar[str] = "PEFT401"
    title: ClassVar[str] = "unreadable configuration"
    label: ClassVar[str] = "{path}: {reason}"
    exit_code: ClassVar[int] = 3
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnknownModelType(Diagnostic):
    """The configuration is of a model that the installed transformers does not know.

    Models that need code from their repository (`auto_map`) are not run: peftc never
    executes code that comes with a model.

    Wrong (config.json):

        {"model_type": "lama"}

    Right:

        {"model_type": "llama"}
    """

    code: ClassVar[str] = "PEFT402"
    title: ClassVar[str] = "unknown type of model"
    label: ClassVar[str] = "{path}: `{name}` is not in the installed transformers"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 3
    path: str
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class AmbiguousArchitecture(Diagnostic):
    """The configuration does not say which one of several models it is of.

    `architectures` must name one class where several fit (an encoder with a language
    head, with a classifier, or with none).

    Wrong (config.json):

        {"model_type": "bert"}

    Right:

        {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    """

    code: ClassVar[str] = "PEFT403"
    title: ClassVar[str] = "the configuration fits several models"
    label: ClassVar[str] = "{path}: could be {names}"
    help: ClassVar[str] = 'write `"architectures": ["..."]` with one of them into it'
    exit_code: ClassVar[int] = 3
    path: str
    names: str


@dataclass(frozen=True, kw_only=True)
class MissingWeights(Diagnostic):
    """There is a configuration but there are no weights.

    Wrong:

        peftc compile spec.peft llama/config.json -o out

    Right:

        peftc compile spec.peft llama/config.json --random-init 0 -o out
    """

    code: ClassVar[str] = "PEFT404"
    title: ClassVar[str] = "no weights"
    label: ClassVar[str] = "{path} has no model.safetensors, nor shards, nor .bin"
    help: ClassVar[str] = "`--random-init SEED` draws random weights"
    exit_code: ClassVar[int] = 3
    path: str


@dataclass(frozen=True, kw_only=True)
class UnreadableWeights(Diagnostic):
    """A weight file is truncated, malformed, or missing from its index.

    Files are checked before any weight is read: the header of each safetensors file
    must describe exactly the bytes that follow it.  Download the file again.
    """

    code: ClassVar[str] = "PEFT405"
    title: ClassVar[str] = "unreadable weights"
    label: ClassVar[str] = "{path}: {reason}"
    help: ClassVar[str] = "the file may be cut off: fetch it again"
    exit_code: ClassVar[int] = 3
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class IncompleteWeights(Diagnostic):
    """The checkpoint lacks weights of the model, or has some of another shape.

    Only a head may be missing (it is then drawn at random, and that is said).  With
    `--random-init SEED` all missing weights are drawn.

    A usual cause is a config.json of another size of the same model.
    """

    code: ClassVar[str] = "PEFT406"
    title: ClassVar[str] = "the checkpoint does not fit the model"
    label: ClassVar[str] = "{path}: {count} weights are {what}: {names}"
    help: ClassVar[str] = "is config.json the one of this checkpoint?"
    exit_code: ClassVar[int] = 3
    path: str
    count: int
    what: str
    names: str


@dataclass(frozen=True, kw_only=True)
class BadConfiguration(Diagnostic):
    """The model cannot be built from its configuration.

    Wrong (config.json): a hidden size that the heads do not divide.

        {"model_type": "bert", "hidden_size": 65, "num_attention_heads": 4}

    Right:

        {"model_type": "bert", "hidden_size": 64, "num_attention_heads": 4}
    """

    code: ClassVar[str] = "PEFT407"
    title: ClassVar[str] = "the model cannot be built"
    label: ClassVar[str] = "{path}: {reason}"
    exit_code: ClassVar[int] = 3
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ModelTooLarge(Diagnostic):
    """The weights would not fit into this machine's memory.

    `peftc plan` needs no weights, so it works for models of any size.
    """

    code: ClassVar[str] = "PEFT408"
    title: ClassVar[str] = "the model does not fit into memory"
    label: ClassVar[str] = "{path}: {need} GiB of weights, {have} GiB of memory"
    exit_code: ClassVar[int] = 3
    path: str
    need: str
    have: str


@dataclass(frozen=True, kw_only=True)
class UnsupportedInput(Diagnostic):
    """An input that the model needs cannot be made up.

    The forward is captured with example inputs.  Tokens, images, sound and features of
    it are made from what the configuration says of their sizes.  Give what is named,
    as the forward takes it; its values do not matter, its sizes and dtype do.

    Wrong:

        peftc.compile(model, "lora(q, r=8)")

    Right:

        inputs = {"pixel_values": torch.zeros(2, 3, 64, 96)}
        peftc.compile(model, "lora(q, r=8)", inputs=inputs)
    """

    code: ClassVar[str] = "PEFT410"
    title: ClassVar[str] = "an input that the model needs cannot be made up"
    label: ClassVar[str] = "{architecture} needs {names}"
    help: ClassVar[str] = (
        "give it in Python: `peftc.compile(model, spec, inputs={{...}})`, or to "
        "`peftc.plan`"
    )
    exit_code: ClassVar[int] = 3
    architecture: str
    names: str


@dataclass(frozen=True, kw_only=True)
class CaptureFailed(Diagnostic):
    """The forward could not be captured as one graph.

    Sites are found in one graph of the whole forward.  Code that chooses by the values
    of tensors, or that the tracer does not know, splits it.
    """

    code: ClassVar[str] = "PEFT411"
    title: ClassVar[str] = "the forward is not one graph"
    label: ClassVar[str] = "{architecture}: {reason}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 3
    architecture: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NoSites(Diagnostic):
    """The captured forward has no linear, edge, norm or table that could be adapted.

    Sites are found from what the forward computes with its parameters; this one
    computes nothing that peftc knows how to rewrite.  Check that the model is the one
    that was meant.
    """

    code: ClassVar[str] = "PEFT412"
    title: ClassVar[str] = "the model has no sites"
    label: ClassVar[str] = "no product with a parameter was found in {architecture}"
    exit_code: ClassVar[int] = 3
    architecture: str
