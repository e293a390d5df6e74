"""The example of sharding, shorter: for `torchrun`."""

from __future__ import annotations

import sys

import fsdp2

if __name__ == "__main__":
    fsdp2.STEPS, fsdp2.EVALUATED = 2, 4
    sys.exit(fsdp2.main())
