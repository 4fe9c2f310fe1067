#!/usr/bin/env bash
# datasets 5.2.0: to_json writes probabilities between 1e-15 and 5e-11 as 0, and smaller ones as they are.
#
# Behaviour: Dataset.to_json, the usual way to hand a data set on as JSON Lines, writes floats with ten decimals. What is below
# 5e-11 becomes 0.0; but from 1e-15 down numbers are written with an exponent and ten digits, so that of two tokens the less
# likely one keeps its probability and the likelier one has none. Whoever stores a teacher's distribution so has logarithms of
# minus infinity, a KL divergence that is infinite or no number, and another order of tokens. Large numbers, from 1e16 on, keep
# ten digits. Nothing is said. double_precision=15, which to_json hands on, leaves no such gap; to_parquet keeps every bit.
#
# Source: datasets/io/json.py of that version, JsonDatasetWriter._batch_json: `batch.to_json(path_or_buf=None, orient=orient,
# lines=lines, **to_json_kwargs)` of a pandas DataFrame, whose double_precision is 10 by default. The documentation of
# Dataset.to_json points to pandas for further arguments and says nothing of rounding. pandas 3.1.1.
#
# Output seen:
#   to_json: 1e-09 is 1e-09, 3e-11 is 0.0, 2e-15 is 0.0, 9e-16 is 9e-16, 2e-17 is 2e-17
#   to_json: 12345678901234568 is 12345678900000000
#   to_json, double_precision=15: 1e-09 is 1e-09, 3e-11 is 3e-11, 2e-15 is 2e-15, 9e-16 is 9e-16, 2e-17 is 2e-17
#   to_parquet: all as they were
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 2>/dev/null
export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$place/venv/bin/python" - "$place" 2>"$place/errors" <<'PYTHON' | tee "$place/seen" ||
import json
import sys

from datasets import Dataset

PROBABILITIES = [1e-09, 3e-11, 2e-15, 9e-16, 2e-17]
PRODUCT = 12345678901234568.0
data = Dataset.from_dict({"number": [*PROBABILITIES, PRODUCT]})


def written(**how: int) -> list[float]:
    data.to_json(f"{sys.argv[1]}/data.jsonl", **how)
    with open(f"{sys.argv[1]}/data.jsonl") as lines:
        return [json.loads(line)["number"] for line in lines]


def told(numbers: list[float]) -> str:
    return ", ".join(f"{was} is {now}" for was, now in zip(PROBABILITIES, numbers))


numbers = written()
print("to_json:", told(numbers))
print(f"to_json: 12345678901234568 is {numbers[-1]:.0f}")
print("to_json, double_precision=15:", told(written(double_precision=15)))
data.to_parquet(f"{sys.argv[1]}/data.parquet")
back = Dataset.from_parquet(f"{sys.argv[1]}/data.parquet", cache_dir=f"{sys.argv[1]}/cache")
print("to_parquet:", "all as they were" if back.to_dict() == data.to_dict() else back.to_dict())
PYTHON
    { tail -20 "$place/errors"; exit 1; }
diff <(sed -n 's/^#   //p' "$0") "$place/seen"
