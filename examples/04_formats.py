"""The same pictures as a WebDataset and as COCO, and a scan of both. Give a Parquet file of pictures, or see drawn ones."""

import json
import sys
from pathlib import Path

from safevlm.training.mini.scenes import render
from webdataset import TarWriter

from safevlm.data import open_source
from safevlm.scan import Checkpoint, scan

out = Path("formats")
(out / "images").mkdir(parents=True, exist_ok=True)
if len(sys.argv) > 1:
    table = open_source(f"parquet:{sys.argv[1]}")
    pictures = [item.data for shard in table.shards() for item in table.read(shard)]
else:
    pictures = []
    for seed in range(12):
        path = out / "images" / f"{seed:06d}.jpg"
        render(seed=seed, split="test", kind="risky" if seed % 3 == 0 else "ordinary", size=128).image.save(
            path
        )
        pictures.append(path.read_bytes())

with TarWriter(str(out / "pictures.tar")) as tar:
    for number, data in enumerate(pictures):
        tar.write({"__key__": f"{number:06d}", "jpg": data})
        (out / "images" / f"{number:06d}.jpg").write_bytes(data)
images = [{"id": n, "file_name": f"{n:06d}.jpg"} for n in range(len(pictures))]
(out / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))

for name, uri in {
    "wds": f"wds:{out}/pictures.tar",
    "coco": f"coco:{out}/coco.json?images={out}/images",
}.items():
    summary = scan(open_source(uri), Checkpoint("safevlm-mini"), out / "scans" / name, fresh=True)
    print(name, dict(summary.verdicts))
