#!/usr/bin/env bash
# s3fs 2026.9.0: an error inside `with fs.open(address, "wb")` publishes what was written until then.
#
# Behaviour: leaving the `with` closes the file, whatever the reason, and closing uploads the rest and makes the object:
# half a file takes the place of the complete one that was there. So does a file that is collected as garbage after an
# error. Inside `with fs.transaction:` the file waits, an error discards it, and the earlier object stays; that needs no
# more requests, and no copy on disk. Python's own open() leaves half a file as well, but only of a new name: here the name
# usually is that of the file to be replaced, since an object appears as a whole.
#
# Source: fsspec/spec.py, AbstractBufferedFile.__exit__: `self.close()`; close() calls flush(force=True), and s3fs/core.py,
# S3File._upload_chunk, commits where `self.autocommit and final`. The documentation of transactions in fsspec tells of
# several files at once, and not that one alone needs them.
#
# Output seen (server: moto 5.2.5 on 127.0.0.1):
#   with: b'half'
#   garbage: b'half'
#   transaction: b'complete'
#   transaction, large: b'complete' and 0 uploads in parts left
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" \
    fsspec==2026.9.0 s3fs==2026.9.0 "moto[server]==5.2.5" 2>/dev/null
PYTHONPATH="$place/packages" python3 - > "$place/seen" 2>"$place/log" <<'PYTHON' || { cat "$place/log"; exit 1; }
from contextlib import suppress

import s3fs
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
files = s3fs.S3FileSystem(key="k", secret="s", endpoint_url=f"http://{host}:{port}", default_block_size=5 << 20)
files.mkdir("bucket")


def again() -> str:
    files.pipe_file("bucket/x", b"complete")
    return "bucket/x"


with suppress(KeyError), files.open(again(), "wb") as file:
    file.write(b"half")
    raise KeyError
print("with:", files.cat_file("bucket/x"))

file = files.open(again(), "wb")
file.write(b"half")
del file
print("garbage:", files.cat_file("bucket/x"))

with suppress(KeyError), files.transaction, files.open(again(), "wb") as file:
    file.write(b"half")
    raise KeyError
print("transaction:", files.cat_file("bucket/x"))

with suppress(KeyError), files.transaction, files.open(again(), "wb") as file:
    file.write(b"half" * (3 << 20))
    raise KeyError
left = files.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", [])
print("transaction, large:", files.cat_file("bucket/x"), "and", len(left), "uploads in parts left")
server.stop()
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
with: b'half'
garbage: b'half'
transaction: b'complete'
transaction, large: b'complete' and 0 uploads in parts left
EXPECTED
echo "as described"
