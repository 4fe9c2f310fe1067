#!/usr/bin/env bash
# fsspec 2026.9.0: over HTTP, whatever goes wrong when a file is looked at is FileNotFoundError.
#
# Behaviour: info() of a server where nobody listens, of one that refuses (403) and of one that fails (500) raises
# FileNotFoundError with nothing but the address, as for a file that is not there (404); exists() says False, so that code
# which writes or computes what does not exist yet takes a server that is down for an empty one. What happened stands in
# `__cause__` alone. A file that is opened at once meets the same, for open() asks info().
#
# Source: fsspec/implementations/http.py of that version, HTTPFileSystem._info: `except Exception as exc: if policy ==
# "get": raise FileNotFoundError(url) from exc`. _exists catches aiohttp.ClientError and says False.
#
# Output seen:
#   404: FileNotFoundError from ClientResponseError, exists: False
#   403: FileNotFoundError from ClientResponseError, exists: False
#   500: FileNotFoundError from ClientResponseError, exists: False
#   down: FileNotFoundError from ClientConnectorError, exists: False
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" "fsspec[http]==2026.9.0" \
    aiohttp==3.14.5 2>/dev/null
PYTHONPATH="$place/packages" python3 - > "$place/seen" 2>"$place/log" <<'PYTHON' || { cat "$place/log"; exit 1; }
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import fsspec


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(int(self.path[1:]))

    do_HEAD = do_GET


server = HTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
with socket.socket() as nobody:
    nobody.bind(("127.0.0.1", 0))  # and never listens
    addresses = {str(code): f"http://127.0.0.1:{server.server_port}/{code}" for code in (404, 403, 500)}
    addresses["down"] = f"http://127.0.0.1:{nobody.getsockname()[1]}/x"
    files = fsspec.filesystem("http")
    for name, address in addresses.items():
        try:
            files.info(address)
        except Exception as error:
            seen = f"{type(error).__name__} from {type(error.__cause__).__name__}"
        print(f"{name}: {seen}, exists: {files.exists(address)}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
404: FileNotFoundError from ClientResponseError, exists: False
403: FileNotFoundError from ClientResponseError, exists: False
500: FileNotFoundError from ClientResponseError, exists: False
down: FileNotFoundError from ClientConnectorError, exists: False
EXPECTED
echo "as described"
