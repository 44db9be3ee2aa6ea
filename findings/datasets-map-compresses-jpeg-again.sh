#!/bin/bash
# A datasets map() that only looks at a JPEG image writes the image anew with quality 75.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0, numpy 2.4.6, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: a function that reads an image and returns a new column leaves the image column as it is. filter()
#   does so, and so does map() with a function that does not touch the image.
# What happens: with images as bytes (parquet, a set from the Hub, webdataset shards), map() keeps the decoded image of
#   every row that the function touched, and encodes it again with Pillow's default for JPEG, which is quality 75. The
#   cause: the lazy row that the function gets forgets, after the first access, that the stored bytes are still good.
#   datasets gives no warning.
# Who is hurt: everybody who adds a quality, pose, brightness or embedding column to a set of face crops. Crops of
#   quality 95 lose more than half of their bytes, and the network trains on the worse images. Their hashes change too.
# Way out: give the names of the columns to map(): input_columns=["image"] hands the image to the function and keeps the
#   bytes. Or cast_column("image", Image(decode=False)), and decode the bytes in the function.
# Output seen (20 generated crops of 112 x 112, JPEG of quality 95; the differences are in levels of 255):
#   as loaded                    unchanged 20 of 20, 6908 bytes an image, mean difference 0.00, quality 95
#   map, reads the label         unchanged 20 of 20, 6908 bytes an image, mean difference 0.00, quality 95
#   filter, reads the image      unchanged 20 of 20, 6908 bytes an image, mean difference 0.00, quality 95
#   map, reads the image         unchanged  0 of 20, 2834 bytes an image, mean difference 3.72, quality 75
#   map, reads the image, batch  unchanged  0 of 20, 2834 bytes an image, mean difference 3.72, quality 75
#   map with input_columns       unchanged 20 of 20, 6908 bytes an image, mean difference 0.00, quality 95
#   map with decode=False        unchanged 20 of 20, 6908 bytes an image, mean difference 0.00, quality 95
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-compile datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import io, sys
import datasets, numpy as np
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as Pil
datasets.disable_progress_bars()
rng = np.random.default_rng(0)
def jpeg(pixels, quality):
    Pil.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return buffer.getvalue()
def crop():  # a smooth picture with a little noise
    coarse = rng.normal(128, 50, (14, 14, 1)) + rng.normal(0, 12, (14, 14, 3))
    smooth = Pil.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((112, 112), Pil.Resampling.BICUBIC)
    return jpeg(np.asarray(smooth) + rng.normal(0, 4, (112, 112, 1)), 95)
def opened(data): return Pil.open(io.BytesIO(data))
def pixels(data): return np.asarray(opened(data)).astype(float)
tables = {q: opened(jpeg(np.zeros((16, 16, 3)), q)).quantization for q in (75, 95)}
crops = [crop() for _ in range(20)]
rows = [{"image": {"bytes": c, "path": None}, "label": i} for i, c in enumerate(crops)]
Dataset.from_list(rows, features=Features({"image": Image(), "label": Value("int64")})).to_parquet("faces.parquet")
faces = load_dataset("parquet", data_files="faces.parquet", split="train", cache_dir="cache")
mean = lambda image: {"brightness": float(np.asarray(image).mean())}
raw = faces.cast_column("image", Image(decode=False))
sets = {
    "as loaded": faces,
    "map, reads the label": faces.map(lambda row: {"even": row["label"] % 2 == 0}),
    "filter, reads the image": faces.filter(lambda row: np.asarray(row["image"]).mean() > 0),
    "map, reads the image": faces.map(lambda row: mean(row["image"])),
    "map, reads the image, batch": faces.map(lambda b: {"width": [i.width for i in b["image"]]}, batched=True),
    "map with input_columns": faces.map(mean, input_columns=["image"]),
    "map with decode=False": raw.map(lambda row: mean(opened(row["image"]["bytes"]))).cast_column("image", Image())}
right = True
for name, found in sets.items():
    data = [row["image"]["bytes"] for row in found.cast_column("image", Image(decode=False))]
    same = sum(a == b for a, b in zip(data, crops))
    differ = np.mean([abs(pixels(a) - pixels(b)).mean() for a, b in zip(data, crops)])
    quality = [q for q in tables if all(getattr(opened(d), "quantization", 0) == tables[q] for d in data)]
    print(f"{name:28} unchanged {same:2} of {len(data)}, {np.mean([len(d) for d in data]):.0f} bytes an image, "
          f"mean difference {differ:.2f}, quality {quality[0] if quality else 'mixed'}")
    right &= (same, quality, differ > 1) == ((0, [75], True) if "map, reads the image" in name else (20, [95], False))
sys.exit(not right)
P
cd "$W"; HF_HOME="$W/hf" OMP_NUM_THREADS=1 v/bin/python run.py
