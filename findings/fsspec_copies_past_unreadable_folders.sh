#!/usr/bin/env bash
# fsspec 2026.9.0: a recursive copy of local files passes over a folder that may not be read, and reports success.
#
# Behaviour: LocalFileSystem.find, du, get and put list folders by walk, whose on_error is "omit" where nobody says
# otherwise: a folder that cannot be listed counts as empty. `get(..., recursive=True)` then makes the folder, copies
# nothing into it, and returns; shutil.copytree raises on the same tree and names the folder. Asking for errors does not
# help: walk(..., on_error="raise") raises where the first folder cannot be listed and passes over those below it, for it
# does not hand on_error on when it calls itself. Whoever copies a store of many files between accounts by fsspec has to
# count files or compare hashes afterwards.
#
# Source: fsspec/spec.py of that version, AbstractFileSystem.walk: `on_error="omit"`, and the calls of self.walk for the
# folders below, which pass maxdepth, detail, topdown and **kwargs. walk's docstring tells of "omit"; those of find, get
# and put do not.
#
# Output seen (as root, which drops to an account without rights, and as a plain account):
#   find: ['a/x']
#   du: 1 of 2 bytes
#   get: returned; files in a: 1, in b: 0
#   copytree: Error, [Errno 13] Permission denied
#   walk of the folder itself, on_error=raise: PermissionError
#   walk of the one around it, on_error=raise: no error
set -euo pipefail
place=$(mktemp -d)
trap 'chmod -R u+rwx "$place" 2>/dev/null || true; rm -rf "$place"' EXIT
chmod 755 "$place"
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" fsspec==2026.9.0 2>/dev/null
mkdir -p "$place/work/tree/a" "$place/work/tree/b"
printf 1 > "$place/work/tree/a/x"
printf 1 > "$place/work/tree/b/x"
chmod 000 "$place/work/tree/b"
chmod 777 "$place/work"
PYTHONPATH="$place/packages" python3 - "$place/work" > "$place/seen" <<'PYTHON'
import os
import shutil
import sys

import fsspec

if os.geteuid() == 0:  # root may read everything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
work = sys.argv[1]
tree, files = f"{work}/tree", fsspec.filesystem("file")
print("find:", [path.removeprefix(f"{tree}/") for path in files.find(tree)])
print("du:", files.du(tree), "of 2 bytes")
files.get(tree, f"{work}/copy", recursive=True)
print("get: returned; files in a:", f"{len(os.listdir(f'{work}/copy/a'))}, in b: {len(os.listdir(f'{work}/copy/b'))}")
try:
    shutil.copytree(tree, f"{work}/again")
except shutil.Error as error:
    print("copytree: Error,", "[Errno 13] Permission denied" if "[Errno 13] Permission denied" in str(error) else error)
for name, place in (("the folder itself", f"{tree}/b"), ("the one around it", tree)):
    try:
        list(files.walk(place, on_error="raise"))
        seen = "no error"
    except PermissionError as error:
        seen = type(error).__name__
    print(f"walk of {name}, on_error=raise: {seen}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
find: ['a/x']
du: 1 of 2 bytes
get: returned; files in a: 1, in b: 0
copytree: Error, [Errno 13] Permission denied
walk of the folder itself, on_error=raise: PermissionError
walk of the one around it, on_error=raise: no error
EXPECTED
echo "as described"
