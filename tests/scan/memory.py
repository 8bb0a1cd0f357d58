"""Peak memory of a scan of many small images, in a process of its own: `python -m tests.scan.memory 10000 200000`.

Prints a line of JSON per size: images, peak_mb (resident, of the whole process), seconds, and
ledger_bytes and rows_bytes per image.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

SIDE, SHARD = 8, 1000


@dataclass(frozen=True)
class Generated:
    """So many BMP files of 8 x 8 pixels, all different, in shards of 1,000."""

    count: int
    uri: str = "generated:"

    def shards(self) -> list:
        """As many as it takes."""
        from safevlm.data import Shard

        starts = range(0, self.count, SHARD)
        return [Shard(str(start), "", min(SHARD, self.count - start)) for start in starts]

    def read(self, shard, passed_over=None) -> Iterator:
        """The shard's images."""
        from PIL import Image

        from safevlm.data import Item
        from tests.data.builders import encoded

        for number in range(int(shard.name), int(shard.name) + shard.images):
            pixels = (number * 2654435761 % 2**32).to_bytes(4, "big") * (SIDE * SIDE * 3 // 4)
            yield Item(str(number), data=encoded(Image.frombytes("RGB", (SIDE, SIDE), pixels), "BMP"))


def scan_generated(count: int) -> dict[str, float]:
    """Scan in this process, with the tiny model of the real classes, and measure."""
    import torch

    from safevlm.scan import ScanOptions, scan
    from tests.tiny import tiny_guard

    torch.set_num_threads(1)
    scorer, begun = tiny_guard().scorer, time.perf_counter()
    with TemporaryDirectory() as folder:
        summary = scan(Generated(count), scorer, Path(folder) / "out", ScanOptions(batch_size=64))
        ledger = (Path(folder) / "out" / "ledger.sqlite").stat().st_size
        rows = sum(path.stat().st_size for path in (Path(folder) / "out" / "rows").iterdir())
        if summary.statuses != {"ok": count}:
            raise SystemExit(f"only {summary.statuses} of {count} images were scored")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": count,
        "peak_mb": round(peak, 1),
        "seconds": round(time.perf_counter() - begun, 1),
        "ledger_bytes": round(ledger / count),
        "rows_bytes": round(rows / count),
    }


def measure(count: int) -> dict[str, float]:
    """The same in a process of its own, so that peaks do not mix."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scan.memory", "--here", str(count)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1] == "--here":
        print(json.dumps(scan_generated(int(sys.argv[2]))))
    else:
        for size in sys.argv[1:]:
            print(json.dumps(measure(int(size))), flush=True)
