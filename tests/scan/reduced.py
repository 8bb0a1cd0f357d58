"""What decoding JPEGs at a reduced scale changes: `python -m tests.scan.reduced SOURCE LIMIT`, with the embedded model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice

import numpy as np
from PIL import Image

from safevlm import RiskScorer
from safevlm.data import decode_item, decode_item_reduced, open_source, perceptual_hash
from safevlm.scan.worker import REDUCING_GAP


def pairs(uri: str, least_side: int) -> Iterator[tuple[Image.Image, Image.Image]]:
    """The source's images that a scan decodes smaller, whole and reduced."""
    source = open_source(uri)
    for shard in source.shards():
        for item in source.read(shard):
            reduced, size = decode_item_reduced(item, least_side=least_side)
            if reduced.size != size:
                yield decode_item(item), reduced


def main(uri: str, limit: int) -> None:
    """Print how far scores and perceptual hashes are apart, of the source's first `limit` such images."""
    scorer = RiskScorer.from_pretrained("safevlm-mini")
    side = scorer.scaled_side
    assert side is not None, "the embedded tower has one size"
    scores, bits = [], []
    for both in islice(pairs(uri, REDUCING_GAP * side), limit):
        whole, reduced = (float(found.score or 0) for found in scorer.assess(both))
        one, other = (int(perceptual_hash(image), 16) for image in both)
        scores.append(abs(whole - reduced))
        bits.append((one ^ other).bit_count())
    print(f"n {len(scores)}, tower scales to {side} px; scores apart: mean {np.mean(scores):.4f}, ", end="")
    print(f"99 % within {np.quantile(scores, 0.99):.4f}, at most {max(scores):.4f}; ", end="")
    print(f"hashes apart: mean {np.mean(bits):.2f} bits of 64, at most {max(bits)}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
