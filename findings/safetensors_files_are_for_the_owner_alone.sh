#!/usr/bin/env bash
# safetensors 0.8.0: save_file makes files that nobody but their owner can read, whatever the umask.
#
# Behaviour: with a umask of 022 every other file is made with mode 0644; save_file makes 0600. A file that is there
# already, readable by a group, is 0600 after it was written again. A folder of save_pretrained then has a
# configuration that colleagues can read and weights that they cannot; on a shared disk loading fails with a
# permission error long after training. Whoever shares weights has to change their mode afterwards.
#
# Source: as strace shows, 0.8.0 opens a new file ".tmp…" beside the one that is meant, with mode 0600, and renames it;
# files of 0.7.0 have the mode of any other.
#
# Output seen:
#   open: 0644
#   save_file: 0600
#   save_file over a file of mode 0664: 0600
#   safetensors 0.7.0, save_file: 0644
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for version in 0.7.0 0.8.0; do
    python3 -m pip install --quiet --disable-pip-version-check --target "$place/$version" \
        "safetensors==$version" numpy==2.3.5 2>/dev/null
done
cat > "$place/modes.py" <<'PYTHON'
import os
import sys

import numpy as np
import safetensors
from safetensors.numpy import save_file

place = sys.argv[1]
os.umask(0o022)


def mode(name):
    """The mode of a file as chmod takes it."""
    return f"{os.stat(f'{place}/{name}').st_mode & 0o777:04o}"


save_file({"a": np.zeros(1)}, f"{place}/saved")
if safetensors.__version__ == "0.7.0":
    print("safetensors 0.7.0, save_file:", mode("saved"))
    sys.exit()
for name in ("opened", "again"):
    open(f"{place}/{name}", "w").close()
print("open:", mode("opened"))
print("save_file:", mode("saved"))
os.chmod(f"{place}/again", 0o664)
save_file({"a": np.zeros(1)}, f"{place}/again")
print("save_file over a file of mode 0664:", mode("again"))
PYTHON
for version in 0.8.0 0.7.0; do
    mkdir "$place/files-$version"
    PYTHONPATH="$place/$version" python3 "$place/modes.py" "$place/files-$version"
done > "$place/seen"
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
open: 0644
save_file: 0600
save_file over a file of mode 0664: 0600
safetensors 0.7.0, save_file: 0644
EXPECTED
echo "as described"
