#!/usr/bin/env bash
# finish() of W&B returns before the file of an offline run is written.
#
# Versions: wandb 0.31.0, Python 3.11, x86-64 Linux 6. Seen on 2026-11-30.
# One would guess: after finish(), which waits for "all data", the folder of an offline run is complete.
# What happens: the file is written by another process, and finish() does not wait for it. In a tenth to a fifth of
#   short runs, the file holds nothing but its head of 7 bytes at that moment, and the rows some milliseconds later. Of
#   a run with more rows, the end is missing.
# Who is hurt: who copies, zips or syncs the folder in the same program: from the disk of a node to a shared one, or
#   with `wandb sync` between two runs. The copy is an empty or a short run, without an error. Short runs (a search over
#   settings, tests) lose everything.
# Way out: wandb.teardown() before the folder is read, which waits for the other process to end (it ends all runs of the
#   program), or copy when the program has ended: at its normal end, W&B waits by itself.
# Output seen: 11 of 60 files grew after finish(); the first from 7 to 3268 bytes
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --no-compile wandb==0.31.0 2> /dev/null
cat > "$work/see.py" <<'EOF'
import sys
from pathlib import Path

import wandb

folder, at_finish = Path(sys.argv[1]), {}
for _ in range(60):
    run = wandb.init(project="faces", dir=folder, reinit="create_new", settings=wandb.Settings(console="off", silent=True))
    for step in range(8):
        run.log({"loss": 1 / (step + 1)})
    run.finish()
    (path,) = folder.glob(f"wandb/offline-run-*-{run.id}/*.wandb")
    at_finish[path] = path.stat().st_size
wandb.teardown()
grown = [(size, path.stat().st_size) for path, size in at_finish.items() if path.stat().st_size != size]
first = "; the first from {} to {} bytes".format(*grown[0]) if grown else ""
print(f"{len(grown)} of {len(at_finish)} files grew after finish(){first}")
sys.exit(0 if grown else "changed: no file grew after finish()")
EOF
WANDB_MODE=offline WANDB_ERROR_REPORTING=false "$work/venv/bin/python" "$work/see.py" "$work"
