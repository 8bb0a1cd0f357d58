"""Scans in forked children that are killed at random moments; children find model and packages in memory.

Arguments: folder of the checkpoint, of the backbone, of pictures or tars, of the results; number of trials; seed.
Writes `reference` and `trial-00` ... below the results, and prints how many runs were killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import imagehash  # noqa: F401  # here, so that children need not
import pyarrow.parquet  # noqa: F401
import torch

from safevlm.data import FolderSource
from safevlm.data.webdataset import WebDatasetSource
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanOptions, reader, scan
from safevlm.scorer import RiskScorer
from safevlm.taxonomy import Taxonomy

KILLS = 3  # at most, before a trial is left to finish


def start(scorer: RiskScorer, pictures: Path, out: Path) -> int:
    """The id of a child that scans."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        tars = next(pictures.glob("*.tar"), None)
        source = WebDatasetSource(pictures) if tars else FolderSource(pictures, files_per_shard=6)
        code = 0 if scan(source, scorer, out, ScanOptions(batch_size=4)).complete else 2
    finally:
        os._exit(code)


def finish(child: int) -> int:
    """Its exit code, or the negative signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Run every trial; exits with an error where a run that was left alone ends otherwise than the reference."""
    guard, backbone, pictures, out = sys.argv[1:5]
    torch.set_num_threads(1)
    reader.PAUSE = 0  # before a broken shard is read again
    scorer = Checkpoint(guard, backbone, Policy(Taxonomy.preset("safevlm"), threshold=0.9)).load()
    chance = random.Random(int(sys.argv[6]))
    begun = time.monotonic()
    code = finish(start(scorer, Path(pictures), Path(out) / "reference"))
    assert code in (0, 2)
    whole, killed = time.monotonic() - begun, 0
    for number in range(int(sys.argv[5])):
        folder = Path(out) / f"trial-{number:02d}"
        left = chance.randint(1, KILLS)
        before = killed
        while left:
            child = start(scorer, Path(pictures), folder)
            time.sleep(chance.uniform(0, whole))
            os.kill(child, signal.SIGKILL)
            if finish(child) == -signal.SIGKILL:
                killed, left = killed + 1, left - 1
            elif killed > before:
                break  # a later run reached the end: there is nothing left to kill
            else:  # the first one did: again from the start, and sooner
                whole *= 0.8
                shutil.rmtree(folder)
        assert finish(start(scorer, Path(pictures), folder)) == code, folder
    print(killed)


if __name__ == "__main__":
    main()
