#!/bin/bash
# A StreamingDataLoader of litdata that resumed with another number of workers loses and repeats samples at the next resume.
#
# Versions: litdata 0.2.76, torch 2.13.0, numpy 2.4.6, Python 3.11, x86-64 Linux. Seen on 2026-11-30.
# One would guess: load_state_dict() in the middle of an epoch gives the rest of the epoch. litdata allows another number of
#   workers or GPUs for it, and its log (INFO) then says "using elastic resume (no duplicates)".
# What happens: the first resume with another number is right. But its next checkpoint lacks the mark resume_mode: a worker
#   process sets it on its own copy, and state_dict() asks the main process. So a second resume, with no further change, takes
#   the epoch as one that began with the new number of workers: it puts the samples into another order, and skips only
#   what the last run had read. Photos come twice, others never, and the epoch is too long. There is no warning.
# Who is hurt: who trains on machines that can be taken away, and goes on with more or fewer of them. Below an epoch gives
#   1.3 times its photos. Sets are often in the order of their folders, so whole people are lost: 53 of 800 with 3 workers.
# Known: pull request 878 of August 2026 brought the elastic resume; its test of a second checkpoint has num_workers=0. We
#   found no issue.
# Way out: after every state_dict() in such an epoch set state["dataset"]["resume_mode"] = "elastic"; or change the number
#   of workers only between epochs; or num_workers=0, which has only one process.
# Output seen (800 people, 5 photos each, batches of 32; 2/4/4: first run with 2 workers, second with 4, last one with 4 to
#   the end; GPUs: ranks, set by environment variables; mended: with the mark set by hand):
#   GPUs  workers         read  photos lost  repeated  people lost
#   1/1/1 2/2/2           4000            0         0            0
#   1/1   2/4             4000            0         0            0
#   1/1/1 2/4/4           5280           96      1376            1
#   1/1/1 2/3/3           5280          394      1674           53
#   1/2/2 2/2/2           5280           96      1376            6
#   2/1/1 2/2/2           5280           32      1312            0
#   1/1/1 2/4/4 mended    4000            0         0            0
#   1/1/1 2/0/0           4000            0         0            0
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile litdata==0.2.76 torch==2.13.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import copy, itertools, logging, os, sys
import numpy as np
from litdata import StreamingDataLoader, StreamingDataset, optimize
logging.disable(logging.WARNING)  # hints that drop_last is off
people, each, batch, steps = 800, 5, 32, 40
def photo(number):
    return {"photo": number, "pixels": np.full((4, 4), number % 251, np.uint8)}
def epoch(gpus, workers, mended):
    seen, state = [], None
    for run, (world, count) in enumerate(zip(gpus, workers)):
        states = []
        for rank in range(world):  # one rank after the other; litdata reads these variables
            os.environ.update(WORLD_SIZE=str(world), GLOBAL_RANK=str(rank), NNODES="1")
            photos = StreamingDataset("set", shuffle=True, drop_last=False)
            loader = StreamingDataLoader(photos, batch_size=batch, num_workers=count)
            state and loader.load_state_dict(copy.deepcopy(state))
            for step in itertools.islice(loader, steps // world if run < len(workers) - 1 else None):
                seen += step["photo"].tolist()
            states.append(copy.deepcopy(loader.state_dict()))
        state = states[0]
        if mended and run:
            state["dataset"]["resume_mode"] = "elastic"
    return np.bincount(seen, minlength=people * each)
optimize(photo, list(range(people * each)), "set", chunk_size=200, num_workers=1, verbose=False, start_method="fork")
right = True
print("GPUs  workers         read  photos lost  repeated  people lost")
for case in ("1/1/1 2/2/2 right", "1/1 2/4 right", "1/1/1 2/4/4 wrong", "1/1/1 2/3/3 wrong", "1/2/2 2/2/2 wrong",
             "2/1/1 2/2/2 wrong", "1/1/1 2/4/4 mended", "1/1/1 2/0/0 right"):
    gpus, workers, kind = case.split()
    seen = epoch(*[[int(n) for n in text.split("/")] for text in (gpus, workers)], kind == "mended")
    lost, again, gone = (seen == 0).sum(), (seen > 1).sum(), (seen.reshape(people, each).sum(1) == 0).sum()
    mark = "mended" if kind == "mended" else ""
    print(f"{gpus:5} {workers:5} {mark:6} {seen.sum():7} {lost:12} {again:9} {gone:12}", flush=True)
    right &= bool(lost > 10 and again > 500 if kind == "wrong" else (seen == 1).all())
sys.exit(not right)
P
cd "$W"; OMP_NUM_THREADS=1 v/bin/python -W ignore run.py 2> /dev/null
