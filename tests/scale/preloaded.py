"""What the server of processes imports once, so that each process starts with it."""

import torch.distributed.fsdp
import transformers.models.llama.modeling_llama

import peftc.api
import peftc.runtime.install
import peftc.sites.view

__all__ = ["peftc", "torch", "transformers"]
