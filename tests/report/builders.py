"""Rows and thumbnails of a scan as they lie on disk, without a scan."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from safevlm import Policy, Taxonomy
from safevlm.report.triage import write_triage

TAXONOMY = Taxonomy.preset("safevlm")
POLICY = Policy(TAXONOMY, threshold=0.5)
POLICY_HASH = POLICY.sha256  # computed anew at each look
SOURCE = "folder:/data/photographs"
SCORES = pa.map_(pa.string(), pa.float32())
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "id", "shard", "sha256", "phash", "level", "category")),
        *(
            (name, pa.string())
            for name in ("verdict", "status", "reason", "text", "read_text", "model", "policy")
        ),
        *((name, pa.int32()) for name in ("index", "number", "width", "height")),
        ("score", pa.float32()),
        ("calibrated", pa.bool_()),
        ("level_probabilities", SCORES),
        ("category_probabilities", SCORES),
    ]
)
THUMBNAIL_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int32()),
        ("thumbnail", pa.binary()),
        ("heatmap", pa.binary()),
        ("heatmap_height", pa.int32()),
        ("heatmap_width", pa.int32()),
    ]
)


def row(number: int, score: float | None, **changes: Any) -> dict[str, Any]:
    """A row; scores from 0.5 on are unsafe, none is undecided."""
    unsafe = score is not None and score >= 0.5
    values = {
        "source": SOURCE,
        "id": f"holiday/{number:06d}.jpg",
        "shard": f"shard-{number % 3}",
        "index": number // 3,
        "number": 0,
        "width": 640,
        "height": 480,
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "phash": hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest(),
        "score": score,
        "level": None
        if score is None
        else TAXONOMY.levels[1 + number % 3]
        if unsafe
        else TAXONOMY.safe_level,
        "category": None if score is None else TAXONOMY.category_names[number % 6] if unsafe else "clean",
        "verdict": "undecided" if score is None else "unsafe" if unsafe else "safe",
        "status": "undecided" if score is None else "ok",
        "reason": "the scorer gave no score" if score is None else "",
        "level_probabilities": {},
        "category_probabilities": {},
        "calibrated": True,
        "text": "",
        "read_text": None,
        "model": "safevlm-mini",
        "policy": POLICY_HASH,
    }
    return values | changes


def error(number: int, **changes: Any) -> dict[str, Any]:
    return row(
        number, None, status="error", sha256=None, phash=None, **{"reason": "is not an image", **changes}
    )


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Scores of a usual scan: most near 0, some near 1; a few undecided, a few errors."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        score = float(np.float32(generator.beta(0.25, 1.1)))
        kind = generator.random()
        if kind < 0.02:
            made.append(error(number))
        else:
            made.append(row(number, None if kind < 0.05 else score, text=f"photograph {number % 7}"))
    return made


def picture(number: int, size: tuple[int, int] = (192, 144)) -> bytes:
    """A landscape in a few shapes, as WebP."""
    generator = np.random.default_rng(number)
    sky, ground, sun = (tuple(int(v) for v in generator.integers(40, 240, 3)) for _ in range(3))
    image = Image.new("RGB", size, sky)
    draw = ImageDraw.Draw(image)
    x, y, radius = (int(generator.integers(20, limit)) for limit in (160, 60, 34))
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=sun)
    hills = [(i * 24, int(size[1] * 0.5 + generator.integers(0, 40))) for i in range(9)]
    draw.polygon([(0, size[1]), *hills, size], fill=ground)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=70)
    return file.getvalue()


def thumbnail(of: dict[str, Any], data: bytes | None = None, side: int = 7) -> dict[str, Any]:
    """With a heatmap that rises from the left edge to the right."""
    grid = np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))
    return {
        "source": of["source"],
        "shard": of["shard"],
        "index": of["index"],
        "thumbnail": picture(of["index"]) if data is None else data,
        "heatmap": grid.tobytes(),
        "heatmap_height": side,
        "heatmap_width": side,
    }


def write_scan(
    folder: Path, made: list[dict[str, Any]], thumbnails: list[dict[str, Any]] | None = None
) -> None:
    """`rows/` and `thumbnails/` below a folder, in parts of 40,000 rows."""
    if thumbnails is None:
        thumbnails = [
            thumbnail(each) for each in made if each["verdict"] == "unsafe" or each["status"] == "undecided"
        ]
    for name, values, schema in (("rows", made, SCHEMA), ("thumbnails", thumbnails, THUMBNAIL_SCHEMA)):
        (folder / name).mkdir(parents=True)
        for part, start in enumerate(range(0, len(values), 40_000)):
            table = pa.Table.from_pylist(values[start : start + 40_000], schema=schema)
            pq.write_table(table, folder / name / f"part-{part:05d}.parquet", row_group_size=4096)


def report(folder: Path, made: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """The page over a scan; `made` is written first where it is given."""
    thumbnails = changes.pop("thumbnails", None)
    if made is not None:
        write_scan(folder, made, thumbnails)
    options = {"taxonomy": TAXONOMY, "policy": POLICY, "source": SOURCE, "summary": {"seconds": 12.5}}
    return write_triage(folder / "rows", folder / "thumbnails", folder / "report.html", **options | changes)
