"""Training compiled models: runs, and what transformers' Trainer needs for them.

In: a compiled model.  Out: `Run` for loops of one's own, `attach` for a Trainer.
"""

from peftc.training.control import Batch, Control, Forward
from peftc.training.run import Run
from peftc.training.trainer import attach

__all__ = ["Batch", "Control", "Forward", "Run", "attach"]
