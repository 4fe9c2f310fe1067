#!/usr/bin/env bash
# Ray 2.60.0: all workers run at nice 15, so that engines and training in them get only what others leave of a processor.
#
# Behaviour: a task or actor of Ray, and all processes that it starts, has the lowest priority but a few. Alone on a machine that
# makes no difference. Beside an ordinary process on the same core it gets a thirtieth of it: an engine of vLLM in an actor
# does not come to an end of loading where others compute, and what is measured of Ray beside the same work without Ray is not
# what Ray costs. Nothing is said. RAY_worker_niceness=0 in the environment of what starts Ray takes it away.
#
# Source: worker_niceness in src/ray/common/ray_config_def.h of that version, 15 by default, applied by the raylet to each
# worker that it starts.
#
# Output seen:
#   who starts Ray: 0
#   a worker: 15, and what it starts: 15
#   a worker with RAY_worker_niceness=0: 0, and what it starts: 0
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0 2>/dev/null
cat > "$place/ask.py" <<'PYTHON'
import os
import subprocess
import sys

import ray


@ray.remote
def niceness() -> tuple[int, int]:
    return os.nice(0), int(subprocess.run(["nice"], capture_output=True, check=True).stdout)


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
of_worker, of_child = ray.get(niceness.remote())
print(f"{sys.argv[1]}: {of_worker}, and what it starts: {of_child}")
PYTHON
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
{
    echo "who starts Ray: $(nice)"
    "$place/venv/bin/python" "$place/ask.py" "a worker" 2>>"$place/errors"
    RAY_worker_niceness=0 "$place/venv/bin/python" "$place/ask.py" "a worker with RAY_worker_niceness=0" 2>>"$place/errors"
} > "$place/seen" || { tail -20 "$place/errors"; exit 1; }
cat "$place/seen"
diff "$place/seen" <(sed -n 's/^#   //p' "$0")
