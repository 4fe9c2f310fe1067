#!/usr/bin/env bash
# Ray 2.60.0: that a worker has died is printed on stdout of the driver, `log_to_driver=False` or not.
#
# Behaviour: a driver that keeps the words of its workers away (`ray.init(log_to_driver=False, logging_level="ERROR")`) and writes
# something for programs on stdout, JSON for example, finds lines of the raylet among it as soon as a process of a task or an actor is
# gone: hundreds of characters in colour each, from a thread of its own. They go to stdout, where Ray's logger and its C++ write to
# stderr. An actor that Ray starts again and a batch that it asks again bring one more each. There is no setting; the flag that would
# keep them away is for the debugger alone.
#
# Source: listen_error_messages and print_worker_logs (`"is_err": False`, `_worker_logs_enabled`) in ray/_private/worker.py of that
# version; the thread is started for every driver, beside `if log_to_driver`.
#
# Output seen:
#   on stderr: nothing of it
#   on stdout: A worker died or was killed while executing a task by an unexpected system error
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0 2>/dev/null
cat > "$place/ask.py" <<'PYTHON'
import os
import time

import ray


@ray.remote
class Short:
    def end(self) -> None:
        os._exit(1)


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    ray.get(Short.remote().end.remote())
except ray.exceptions.ActorDiedError:
    time.sleep(5)
PYTHON
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
"$place/venv/bin/python" "$place/ask.py" > "$place/out" 2> "$place/err" || { tail -20 "$place/err"; exit 1; }
words='A worker died or was killed while executing a task by an unexpected system error'
{
    echo "on stderr: $(grep -o "$words" "$place/err" || echo nothing of it)"
    echo "on stdout: $(grep -o "$words" "$place/out" || echo nothing of it)"
} | tee "$place/seen"
diff "$place/seen" <(sed -n 's/^#   //p' "$0")
