"""Random draws of the synthetic world: pure functions of the key of a post, day or instance, and of a name.

The names are part of the seed: another name is another world.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Keys = NDArray[np.uint64]


def hash_of(text: str) -> int:
    """Return the hash of a text, which is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(keys: Keys) -> Keys:
    """Apply the finalizer of SplitMix64: neighbouring keys give unrelated numbers."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def child(keys: Keys, number: IntArray) -> Keys:
    """Return the key of an element of each key: of a day of an instance, or of a post of a day."""
    return _mixed(keys + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def uniform(keys: Keys, name: str) -> NDArray[np.float64]:
    """Draw from 0 inclusive to 1 exclusive."""
    return (_mixed(keys ^ np.uint64(hash_of(name))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(keys: Keys, name: str) -> NDArray[np.float64]:
    """Draw from the standard normal distribution, by the Box-Muller transform."""
    radius = np.sqrt(-2 * np.log1p(-uniform(keys, f"{name}, radius")))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(keys, f"{name}, angle")))


def log_normal(keys: Keys, name: str, *, median: float, sigma: float) -> NDArray[np.float64]:
    """Draw from a log-normal distribution; `sigma` is the standard deviation of the logarithm."""
    return np.asarray(median * np.exp(sigma * normal(keys, name)))


def skewed(keys: Keys, name: str, *, choices: int) -> IntArray:
    """Draw an index below `choices`; lower ones are more likely."""
    return floor(uniform(keys, name) ** 2 * choices)


def floor(values: NDArray[np.float64]) -> IntArray:
    return np.floor(values).astype(np.int64)
