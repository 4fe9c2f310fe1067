#!/usr/bin/env bash
# Ray Data 2.60.0: a source that hands over its blocks one after the other is not read on before it has ended.
#
# Behaviour: a read task may yield blocks, and Ray Data's executor streams: the next operator works while the task goes on. But what
# a task yields is put together until it exceeds the context's target_max_block_size, 128 MiB, whatever the blocks were. Of a source of small
# rows that come in time (questions of a queue, lines of a log) nothing arrives before the source ends, and of one that does not
# end nothing ever. With a target of one byte every row is passed on at once, and is a block by itself. So an engine of
# ray.data.llm, which lives as long as its data set, cannot be fed with one request after the other.
#
# Source: BlockOutputBuffer.has_next in ray/data/_internal/output_buffer.py, and plan_read_op.py, of that version.
#
# Output seen, of five rows that are yielded a second apart:
#   as it is: the first row arrives after the last was yielded, in a block of 5
#   target_max_block_size=1: the first row arrives before the last was yielded, in a block of 1
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[data]==2.60.0' 2>/dev/null
cat > "$place/read.py" <<'PYTHON'
import sys
import time

import pyarrow
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata


class Slow(Datasource):
    def estimate_inmemory_data_size(self):
        return None

    def get_read_tasks(self, parallelism, per_task_row_limit=None, data_context=None):
        def rows():
            for number in range(5):
                yield pyarrow.table({"number": [number], "yielded": [time.time()]})
                time.sleep(1)

        about = BlockMetadata(num_rows=5, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(rows, about)]


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
if len(sys.argv) > 1:
    context.target_max_block_size = int(sys.argv[1])
blocks = ray.data.read_datasource(Slow(), override_num_blocks=1).iter_batches(
    batch_size=None, batch_format="pyarrow", prefetch_batches=0
)
arrived, yielded, sizes = [], [], []
for block in blocks:
    arrived.append(time.time())
    yielded += block["yielded"].to_pylist()
    sizes.append(block.num_rows)
when = "after" if arrived[0] > yielded[-1] else "before"
name = f"target_max_block_size={sys.argv[1]}" if len(sys.argv) > 1 else "as it is"
print(f"{name}: the first row arrives {when} the last was yielded, in a block of {sizes[0]}")
PYTHON
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
{
    "$place/venv/bin/python" "$place/read.py" 2>>"$place/errors"
    "$place/venv/bin/python" "$place/read.py" 1 2>>"$place/errors"
} > "$place/seen" || { tail -20 "$place/errors"; exit 1; }
cat "$place/seen"
diff "$place/seen" <(sed -n 's/^#   //p' "$0")
