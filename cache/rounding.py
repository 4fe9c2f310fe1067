"""Rounding: attention of any float type enters, the float16 values that a space stores leave.

Without rounding those are the nearest float16. With it (`attention.keep_bits`) the last bits of the mantissa are zero,
which compresses better, and since that happens before writing, any zarr v3 reader reads the result. What a space keeps
stands in its spec, so that no writer can fill it otherwise.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.fingerprints import Spec
from data.errors import ConfigError

ALL_BITS = 10
"""Bits of float16's mantissa: keeping them all is no rounding."""


def kept_bits(spec: Spec) -> int:
    """Return how many bits of the mantissa a space of this spec keeps; raises `ConfigError` for any other rounding."""
    rounding = spec.get("rounding")
    if rounding is None:
        return ALL_BITS
    bits = rounding.get("bitround") if isinstance(rounding, Mapping) and rounding.keys() == {"bitround"} else None
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= ALL_BITS:
        raise ConfigError(f"rounding: expected nothing or bitround with 1 to {ALL_BITS} bits, found {rounding}")
    return bits


def largest_value(keep_bits: int) -> int:
    """Return the largest number of float16 that has no more bits than these: 65,504 with all of them."""
    return (1 << 16) - (1 << 15 - keep_bits)


def stored_values(attention: npt.NDArray[np.floating[Any]], keep_bits: int) -> npt.NDArray[np.float16]:
    """Return the values as they are stored: in float16, rounded to `keep_bits` bits of its mantissa, ties to even.

    Zero stays zero, and rounding twice changes nothing. A value that rounds to more than `largest_value` is infinite.
    """
    with np.errstate(over="ignore"):
        halves = attention.astype(np.float16)
    if keep_bits == ALL_BITS:
        return halves
    from numcodecs.bitround import BitRound  # here: those who only ask what a spec says need no codecs

    rounded = BitRound(keepbits=keep_bits).encode(halves).view(np.float16)
    # Rounding the bits of what is not a number may give a number.
    return np.where(np.isfinite(halves), rounded, halves)
