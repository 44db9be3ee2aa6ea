#!/bin/bash
# What only a GPU can show, within nine minutes: tests, step, loss, feed, demo, resume, profile.
# `make gpu` runs it. It needs no network. Everything is printed, and written under $OUT.
# DEVICE=cpu is a trial of this script on a machine without a GPU, at toy sizes, with six times the limits.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
PYTHON=${PYTHON:-python3} OUT=${OUT:-runs/gpu} DEVICE=${DEVICE:-cuda}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
tiny=() rows=() marked=gpu people=400 each=50 steps=200 slack=1
if [ "$DEVICE" = cpu ]; then tiny=(--device cpu --tiny) rows=(--only bf16 fp32 'bf16 muon') marked="not gpu" people=8 each=8 steps=4 slack=6; fi

mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
if [ -d wheels ]; then # what this machine lacks: wheels that you brought along
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$OUT/site" wheels/*.whl
  PYTHONPATH=$OUT/site:$PYTHONPATH
fi
if [ "$DEVICE" = cuda ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: make gpu: PyTorch finds no GPU here · run it on a machine with one, or try the script: DEVICE=cpu make gpu" >&2
  exit 2
fi

failed=() rm_after=$OUT/work
part() { # NAME SECONDS COMMAND…: its output is in NAME.txt; a failure costs this part alone
  local name=$1 limit=$(($2 * slack)) why
  shift 2
  echo && echo "=== $name (limit $limit s, $SECONDS s since the start)"
  timeout --kill-after 5 "$limit" "$@" 2>&1 | tee "$OUT/$name.txt"
  local code=${PIPESTATUS[0]}
  [ "$code" = 0 ] && return
  case $code in 124 | 137) why="out of time after $limit s" ;; *) why="exit code $code" ;; esac
  failed+=("$name: $why") && echo "=== $name: $why"
}
train() { "$PYTHON" train.py --device "$DEVICE" --set runs_dir="$rm_after/runs" --set checkpoint.every_steps=1000 "$@"; }
feed() { # trains from the .rec with 2 and with 14 workers; log lines have images_per_s
  "$PYTHON" benchmarks/make_rec.py "$rm_after/rec" --people $people --each $each || return
  local network=(--config sphere20 --set train.precision=bf16)
  [ "$DEVICE" = cpu ] && network+=(--set model.depth=4 --set 'model.widths=[4,4,4,4]' --set train.batch_size=8)
  for workers in 2 14; do
    echo "data.workers=$workers"
    train "${network[@]}" --set name=feed$workers --set data.train="$rm_after/rec/train.rec" --set 'data.exclude=[]' \
      --set data.workers=$workers --set 'eval.sets={}' --set eval.select=null --set 'train.milestones=[]' \
      --set train.steps=$steps --set log.every_steps=$((steps / 4)) || return
  done
}
demo() { # as `make demo`, then resumed from its end
  [ -d data/orl-112x96 ] || "$PYTHON" scripts/prepare_orl.py || return
  train --config demo --set train.steps=$steps --set 'train.schedule=cosine' || return
  train --config demo --set train.steps=$((steps + 20)) --resume "$(ls -d "$rm_after"/runs/demo/*/ | tail -1)"
}
profile() { train --config demo --set name=profile --profile 5; }
export -f train feed demo profile
export PYTHON DEVICE rm_after people each steps

rm -rf "$rm_after"
part machine 30 bash -c 'date -u; git rev-parse HEAD; nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit \
  --format=csv,noheader 2>/dev/null; "$PYTHON" -c "import sys, torch; print(sys.version.split()[0], torch.__version__)"'
part tests 170 "$PYTHON" -m pytest tests/gpu -m "$marked" -n 4 --timeout 120 --tb short -p no:cacheprovider -p no:logging
part step 120 "$PYTHON" benchmarks/bench_step_gpu.py --out "$OUT" ${tiny[@]+"${tiny[@]}" "${rows[@]}"}
part loss 80 "$PYTHON" benchmarks/bench_loss_gpu.py --json "$OUT/loss.json" ${tiny[@]+"${tiny[@]}"}
part feed 60 bash -c feed
part demo 40 bash -c demo
part profile 30 bash -c profile
rm -rf "$rm_after"
echo && echo "=== $SECONDS s · written to $OUT · parts that failed: ${#failed[@]}"
[ ${#failed[@]} = 0 ] || { printf '=== %s\n' "${failed[@]}" && exit 1; }
