#!/bin/bash
# datasets' to_parquet of a folder of images writes no image, only a path on the writer's machine and null bytes.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0, numpy 2.4.6, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: the parquet file holds the images, as with save_to_disk ("All the Image() ... data are stored in the
#   arrow files"), push_to_hub and download_and_prepare(file_format="parquet") of the same set.
# What happens: to_parquet writes the table as it lies in memory. A set from imagefolder, or from a list of paths, holds
#   {"bytes": null, "path": "/home/..."}. The file is about a hundredth of the images, and to_parquet gives no warning.
#   The test that everybody makes passes: on the same machine, load_dataset reads the images through the paths. It also
#   shows another image once a file is overwritten, for example by a second alignment of the faces.
# Who is hurt: everybody who packs face crops in parquet, moves or deletes the folder, and trains or archives from the
#   file: there is no image in it. Everybody who keeps the file as a fixed version of a set: it changes with the folder.
#   pyarrow gets nulls at once.
# Way out: map(embed_table_storage, batched=True) on the set in "arrow" format reads the files in; or save_to_disk, then
#   load_from_disk and to_parquet. Check that image.bytes has no null before the folder goes.
# Output seen (8 generated JPEG images; one file is overwritten with an image of 64 x 64, then the folder is moved):
#   images                    122737 bytes
#   to_parquet                  1413 bytes, 8 of 8 rows without an image; overwritten: (64, 64), moved: FileNotFoundError
#   embedded, to_parquet      123865 bytes, 0 of 8 rows without an image; overwritten: (112, 112), moved: (112, 112)
#   save_to_disk, to_parquet  123865 bytes, 0 of 8 rows without an image; overwritten: (112, 112), moved: (112, 112)
#   download_and_prepare      123865 bytes, 0 of 8 rows without an image; overwritten: (112, 112), moved: (112, 112)
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import os, sys
from pathlib import Path
import datasets, numpy as np, pyarrow.parquet as pq
from datasets import load_dataset, load_dataset_builder, load_from_disk
from datasets.table import embed_table_storage
from PIL import Image
datasets.disable_progress_bars()
os.mkdir("faces")
for i in range(8):
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (112, 112, 3), np.uint8)).save(f"faces/{i}.jpg", quality=95)
total = sum(f.stat().st_size for f in Path("faces").iterdir())
faces = load_dataset("imagefolder", data_dir="faces", split="train", cache_dir="cache")
faces.to_parquet("plain.parquet")
faces.with_format("arrow").map(embed_table_storage, batched=True).with_format(None).to_parquet("embedded.parquet")
faces.save_to_disk("saved")
load_from_disk("saved").to_parquet("saved.parquet")
builder = load_dataset_builder("imagefolder", data_dir="faces", cache_dir="cache2")
builder.download_and_prepare("built", file_format="parquet")
written = {"to_parquet": "plain.parquet", "embedded, to_parquet": "embedded.parquet",
           "save_to_disk, to_parquet": "saved.parquet", "download_and_prepare": "built/imagefolder-train.parquet"}
sets = {n: load_dataset("parquet", data_files=f, split="train", cache_dir="cache") for n, f in written.items()}
def size(name):
    try:
        return sets[name][0]["image"].size
    except FileNotFoundError as error:
        return type(error).__name__
before = {name: size(name) for name in sets}
Image.new("RGB", (64, 64)).save("faces/0.jpg")
overwritten = {name: size(name) for name in sets}
os.rename("faces", "moved")
print(f"{'images':24} {total:7} bytes")
right = set(before.values()) == {(112, 112)}
for name, file in written.items():
    rows = pq.read_table(file)["image"].to_pylist()
    empty, large = sum(row["bytes"] is None for row in rows), os.path.getsize(file) > total
    after = overwritten[name], size(name)
    print(f"{name:24} {os.path.getsize(file):7} bytes, {empty} of {len(rows)} rows without an image; "
          f"overwritten: {after[0]}, moved: {after[1]}")
    right &= (empty, large, *after) == ((8, False, (64, 64), "FileNotFoundError") if name == "to_parquet" else
                                        (0, True, (112, 112), (112, 112)))
sys.exit(not right)
P
cd "$W"; HF_HOME="$W/hf" OMP_NUM_THREADS=1 v/bin/python run.py
