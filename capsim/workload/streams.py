"""Named random streams: each purpose has its own, so that one knob never shifts another's draws."""

from hashlib import sha256

import numpy as np


def stream(seed: int, replication: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose in one replication, found by hashing the purpose's name, not by order."""
    key = int.from_bytes(sha256(purpose.encode()).digest()[:8], "big")
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(replication, key)))
