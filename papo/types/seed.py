"""Counter-based seeds: a random number depends on where it is used, never on what ran before."""

import hashlib


def derive_seed(*counters: int | str) -> int:
    """Returns a 63-bit seed that is a fixed function of its arguments, on every platform.

    `derive_seed(seed, "mask", step, index)` gives independent streams for different arguments, so a
    resumed run draws what the uninterrupted one would have drawn without any saved state.
    """
    digest = hashlib.blake2b(repr(counters).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def derive_seeds(seed: int, count: int) -> list[int]:
    """Returns `count` seeds of independent streams, each a function of `seed` and its index alone."""
    return [derive_seed(seed, index) for index in range(count)]
