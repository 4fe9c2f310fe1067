"""Certificates: what storing in float16, rounded or not, has changed, as it was measured when the values were written.

Only rounded values lie in a store, so the error is measured by whoever has the exact ones (`stages.attention.certify`)
and is committed with each part as `note.rounding`. Here such notes are read and added up over a space.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from cache.fingerprints import JSON

NOTE = "rounding"
"""The field of a commit's note that holds the certificate."""
SMALLEST_NORMAL = 2.0**-14
"""Below it float16 has no relative precision any more, only steps of one size."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What storing has changed in some records, against attention in float32.

    The relative error of a value x stored as y is |y − x| / max(|x|, 2^-14): below float16's smallest normal number,
    errors are taken relative to that number. It was measured on all `values` of `records`. Layer weights (Eq. 4) and
    the targets mixed with them were computed twice, with temperature `tau`, from exact and from stored values of
    `sampled_records`: the distance of two weight vectors is their total variation, half the sum of |p − q|, and the
    divergence is that of Eq. 6, in nats.
    """

    tau: float
    records: int
    values: int
    sampled_records: int
    largest_relative_error: float
    mean_relative_error: float
    largest_weight_change: float
    mean_weight_distance: float
    largest_target_divergence: float
    mean_target_divergence: float

    def as_note(self) -> dict[str, JSON]:
        """Return the certificate as it stands in a commit."""
        return asdict(self)


def read_certificate(note: JSON) -> Certificate:
    """Return the certificate in a commit's note; raises `ValueError` where it is none."""
    if not isinstance(note, Mapping):
        raise ValueError("expected an object")
    if wrong := note.keys() ^ {field.name for field in fields(Certificate)}:
        raise ValueError(f"missing or unknown: {', '.join(sorted(wrong))}")
    counts = {name: _count(name, note[name]) for name in ("records", "values", "sampled_records")}
    numbers = {name: _number(name, value) for name, value in note.items() if name not in counts}
    return Certificate(**counts, **numbers)  # type: ignore[arg-type]  # names were compared above


def add_up(certificates: Iterable[Certificate]) -> list[Certificate]:
    """Return one certificate over all of them, or one for each `tau` that occurs."""
    by_tau: dict[float, list[Certificate]] = {}
    for certificate in certificates:
        by_tau.setdefault(certificate.tau, []).append(certificate)
    return [_sum(group) for group in by_tau.values()]


def _sum(group: Sequence[Certificate]) -> Certificate:
    values = [one.values for one in group]
    sampled = [one.sampled_records for one in group]
    return Certificate(
        tau=group[0].tau,
        records=sum(one.records for one in group),
        values=sum(values),
        sampled_records=sum(sampled),
        largest_relative_error=max(one.largest_relative_error for one in group),
        mean_relative_error=_mean([one.mean_relative_error for one in group], values),
        largest_weight_change=max(one.largest_weight_change for one in group),
        mean_weight_distance=_mean([one.mean_weight_distance for one in group], sampled),
        largest_target_divergence=max(one.largest_target_divergence for one in group),
        mean_target_divergence=_mean([one.mean_target_divergence for one in group], sampled),
    )


def _mean(means: Sequence[float], counts: Sequence[int]) -> float:
    return sum(mean * count for mean, count in zip(means, counts, strict=True)) / max(sum(counts), 1)


def _count(name: str, value: JSON) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}: expected a count, found {value!r}")
    return value


def _number(name: str, value: JSON) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, found {value!r}")
    return float(value)
