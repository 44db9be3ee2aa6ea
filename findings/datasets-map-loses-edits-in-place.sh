#!/bin/bash
# A datasets map() over a folder of images throws away what the function drew on the image or shrank with thumbnail().
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0, numpy 2.4.6, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: the image that the function returns is the image that the new set holds.
# What happens: datasets asks a Pillow image for its filename. If it has one, datasets stores that path and no pixels.
#   Pillow keeps the filename when it changes an image in place: ImageDraw, paste(), putpixel(), thumbnail(). So the new
#   set holds the old file. The other columns keep their new values. The same function is right on images as bytes
#   (parquet, the Hub), in streaming mode, and where an operation makes a new image (resize(), crop(), convert()).
#   datasets gives no warning. Dataset.from_generator and from_list do the same to an image that was opened and edited.
# Who is hurt: everybody who masks eyes or mouths, or shrinks images and scales their landmarks: the landmarks no longer
#   fit the images, and a set that should hide something shows it. A test with parquet or streaming does not find it.
# Way out: copy first, row["image"] = row["image"].copy(), and edit the copy: a copy has no filename.
# Output seen (8 generated images of 112 x 112; a bar of zeros over the eyes; thumbnail((56, 56)) halves the landmark):
#   folder             mean under the bar 122.3, size (112, 112), landmark 19.0 (in the image at 38)
#   folder, streaming  mean under the bar   0.0, size (56, 56), landmark 19.0 (in the image at 19)
#   parquet            mean under the bar   0.6, size (56, 56), landmark 19.0 (in the image at 19)
#   folder, copy first mean under the bar   0.0, size (56, 56), landmark 19.0 (in the image at 19)
#   from_generator     mean under the bar 122.3, size (112, 112), landmark 19.0 (in the image at 38)
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import os, sys
from pathlib import Path
import datasets, numpy as np
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as Pil, ImageDraw
datasets.disable_progress_bars()
rng, kinds = np.random.default_rng(0), Features({"image": Image(), "x": Value("float64")})
os.mkdir("faces")
for i in range(8):
    coarse = Pil.fromarray(rng.integers(30, 226, (14, 14, 3), np.uint8))
    coarse.resize((112, 112), Pil.Resampling.BICUBIC).save(f"faces/{i}.jpg", quality=95)
files = sorted(Path("faces").iterdir())
Dataset.from_list([{"image": {"bytes": f.read_bytes(), "path": None}, "x": 38.0} for f in files],
                  features=kinds).to_parquet("faces.parquet")
def bar(row):
    ImageDraw.Draw(row["image"]).rectangle((20, 40, 91, 63), fill=(0, 0, 0))
    return row
def half(row):
    row["image"].thumbnail((56, 56))
    return {"image": row["image"], "x": row.get("x", 38.0) / 2}
def copied(function):
    return lambda row: function({**row, "image": row["image"].copy()})
def edited(function):
    for f in files:
        yield function({"image": Pil.open(f), "x": 38.0})
folder = load_dataset("imagefolder", data_dir="faces", split="train", cache_dir="cache")
stream = load_dataset("imagefolder", data_dir="faces", split="train", streaming=True)
parquet = load_dataset("parquet", data_files="faces.parquet", split="train", cache_dir="cache")
made = lambda f: Dataset.from_generator(edited, gen_kwargs={"function": f}, features=kinds, cache_dir="cache")
right = True
for name, run in {"folder": folder.map, "folder, streaming": stream.map, "parquet": parquet.map,
                  "folder, copy first": lambda f: folder.map(copied(f)), "from_generator": made}.items():
    under = np.mean([np.asarray(row["image"])[44:60, 24:88].mean() for row in run(bar)])
    row = next(iter(run(half)))
    size, lost = row["image"].size, name in ("folder", "from_generator")
    print(f"{name:18} mean under the bar {under:5.1f}, size {size}, landmark {row['x']} "
          f"(in the image at {38 * size[0] // 112})")
    right &= (under > 50) == lost and size == ((112, 112) if lost else (56, 56)) and row["x"] == 19
sys.exit(not right)
P
cd "$W"; HF_HOME="$W/hf" OMP_NUM_THREADS=1 v/bin/python run.py
