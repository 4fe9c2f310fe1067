#!/usr/bin/env bash
# torch 2.13.0 and transformers 5.19.0 on CPython 3.11: a third of what importing them takes is the search for garbage.
#
# Behaviour: CPython looks for cycles of garbage whenever 700 more containers were made than freed, and through everything
# from time to time. Importing torch and a model's class makes some hundred thousand containers, nearly all of which stay: the
# searches find next to nothing, and there is one more when the process ends. With gc.disable() before the
# imports and gc.freeze() after them the whole process takes three fifths of the processors' time. Nothing else changes.
# From CPython 3.12 on the search waits for the next bytecode, from 3.14 on it goes in steps: there the share is another.
#
# Source: docs.python.org/3.11/library/gc.html on gc.freeze and gc.set_threshold; seconds as measured here.
#
# Output seen (CPython 3.11.7, two cores):
#   searches while torch and LlamaForCausalLM are imported: 950, of all generations: 6
#   processors' time without them: 0.63 of the time with them
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "this is about CPython 3.11"; exit 1; }
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    torch==2.13.0 transformers==5.19.0 2>/dev/null
export PYTHONPATH="$place/packages" TRANSFORMERS_VERBOSITY=error
python3 - <<'PYTHON'
import json, os, resource, statistics, subprocess, sys

IMPORTS = "import torch; from transformers import LlamaForCausalLM, Trainer"
COUNTED = f"""
import gc, json
found = [0, 0, 0]
gc.callbacks.append(lambda phase, about: phase == "start" and found.__setitem__(about["generation"], found[about["generation"]] + 1))
{IMPORTS}
print(json.dumps(found))
"""
searches = json.loads(subprocess.run([sys.executable, "-c", COUNTED], check=True, capture_output=True).stdout.splitlines()[-1])
print(f"searches while torch and LlamaForCausalLM are imported: {sum(searches):,}, of all generations: {searches[2]}")


def seconds(code):
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


ways = (IMPORTS, f"import gc; gc.disable(); {IMPORTS}; gc.freeze()")
seconds(ways[0])  # bytecode is written once
ratios = [seconds(ways[1]) / seconds(ways[0]) for _ in range(5)]
ratio = statistics.median(ratios)
print(f"processors' time without them: {ratio:.2f} of the time with them")
sys.exit(not (searches[2] >= 3 and ratio < 0.8))
PYTHON
