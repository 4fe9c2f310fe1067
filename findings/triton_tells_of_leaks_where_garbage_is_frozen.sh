#!/usr/bin/env bash
# triton 3.9.0: a process that calls gc.freeze() after importing it ends with dozens of lines about leaks on standard error.
#
# Behaviour: Triton is bound by nanobind since 3.9 (3.8.0 is not). As the interpreter ends, nanobind counts its types, functions
# and instances that are still there, and writes of each. Python frees them in its last search for garbage, from which
# gc.freeze() takes what was there when it was called. torch 2.15 loads libtriton with transformers' models, also where
# nothing is compiled. The exit code stays 0. gc.unfreeze() at the end leaves nothing to write of.
#
# Source: nanobind's leak warnings, which only C++ can switch off (nb::set_leak_warnings).
#
# Output seen:
#   as it is: nothing
#   frozen: nanobind: leaked 4 instances!
#   frozen, and no longer at the end: nothing
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$place/packages" triton==3.9.0 2>/dev/null

ending() {  # ending NAME CODE: what a process writes that imports it and then runs CODE
    local written
    written=$(PYTHONPATH="$place/packages" python3 -c "import atexit, gc
import triton._C.libtriton
$2" 2>&1)
    echo "$1: $(head -1 <<< "${written:-nothing}")"
}

{
    ending "as it is" "pass"
    ending "frozen" "gc.freeze()"
    ending "frozen, and no longer at the end" "atexit.register(gc.unfreeze); gc.freeze()"
} > "$place/seen"
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
as it is: nothing
frozen: nanobind: leaked 4 instances!
frozen, and no longer at the end: nothing
EXPECTED
echo "as described"
