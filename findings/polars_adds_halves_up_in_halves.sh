#!/usr/bin/env bash
# polars 2.1.0: within groups a column of Float16 is added up in Float16, and stops growing.
#
# Behaviour: 30,000 times 0.1 is 3,000 (2,999.3 with the nearest half, 0.09998). As a whole column polars says so; in
# group_by(...).agg(sum()) it says 256, where the distance of two halves is 0.25 and adding 0.1 changes nothing any more;
# with several threads that is so for the share of each, and they add up to 512 with two. No warning, no overflow. mean()
# of the same group is near. Whoever stores numbers that others will add up in groups stores float32.
#
# Output seen:
#   whole: near
#   group: 256.0
#   group, mean: near
#   group, cast: near
#   numpy: near
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" polars==2.1.0 numpy 2>/dev/null
POLARS_MAX_THREADS=1 PYTHONPATH="$place/packages" python3 - > "$place/seen" <<'PYTHON'
import numpy as np
import polars as pl

halves = np.full(30_000, 0.1, np.float16)
exact = float(halves.astype(np.float64).sum())
frame = pl.DataFrame({"group": ["a"] * 30_000, "value": pl.Series(halves, dtype=pl.Float16)})


def near(value: float) -> str:
    return "near" if abs(value - exact) < 0.01 * exact else str(float(value))


print("whole:", near(frame["value"].sum()))
print("group:", near(frame.group_by("group").agg(pl.col("value").sum())["value"][0]))
mean = frame.group_by("group").agg(pl.col("value").mean())["value"][0]
print("group, mean:", near(mean * len(halves)))
cast = pl.col("value").cast(pl.Float32)
print("group, cast:", near(frame.group_by("group").agg(cast.sum())["value"][0]))
print("numpy:", near(halves.sum()))
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
whole: near
group: 256.0
group, mean: near
group, cast: near
numpy: near
EXPECTED
echo "as described"
