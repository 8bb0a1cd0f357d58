"""Reader: the writing in an image, as text. The one place that knows rapidocr."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from safevlm.errors import MissingExtraError

MIN_SCORE = 0.5
"""The least confidence of a line, in [0, 1], that is taken as read: rapidocr's own default, `text_score`."""

MIN_SIDE, MAX_SIDE = 736, 1280
"""Pixels of the longer side: smaller images are enlarged to 736, what rapidocr's detector was set up for
(`limit_side_len`), since letters are read best at 20 pixels and more; larger ones are reduced to 1280, three times
the work, so that no image takes long."""

MAX_RATIO = 8
"""Longer side to shorter side, as rapidocr's `width_height_ratio`; strips beyond it are padded, which bounds the memory."""


class Reader:
    """Reads writing with rapidocr's models (PP-OCRv4: Chinese and English), on the CPU.

    Picklable; another process loads the models again. Threads may share a reader, one reads at a time.

    Args:
        threads: of onnxruntime, for one image.

    Raises:
        MissingExtraError: rapidocr-onnxruntime is not installed.
    """

    def __init__(self, threads: int = 1) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise MissingExtraError("rapidocr-onnxruntime", "ocr") from error
        self.threads = threads
        self._lock = Lock()  # the engine keeps state of the image that it reads
        self._engine: Any = RapidOCR(
            text_score=MIN_SCORE,
            det_limit_type="max",  # the size is ours; "min" would enlarge a strip to gigabytes
            intra_op_num_threads=threads,
            inter_op_num_threads=1,
        )

    def __reduce__(self) -> tuple[type[Reader], tuple[int]]:
        return Reader, (self.threads,)

    def read(self, image: Image.Image) -> str:
        """The lines from top to bottom and left to right, with blanks between them; "" where none is found.

        A line without a letter or digit is none: textures are often read as punctuation.

        Args:
            image: RGB, of any size.

        Raises:
            Exception: of onnxruntime, OpenCV or rapidocr, whatever they run into.
        """
        pixels = np.ascontiguousarray(np.asarray(_readable(image))[:, :, ::-1])  # BGR, as OpenCV has it
        with self._lock:
            lines, _ = self._engine(pixels, use_cls=False)  # it turns some upright lines upside down
        return " ".join(text.strip() for _, text, _ in lines or () if any(map(str.isalnum, text)))


def _readable(image: Image.Image) -> Image.Image:
    """The image at a size at which it is read well, RGB."""
    longer = max(image.size)
    scale = min(max(longer, MIN_SIDE), MAX_SIDE) / longer
    width, height = (max(1, round(side * scale)) for side in image.size)
    sized = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    least = max(width, height) // MAX_RATIO
    if min(width, height) >= least:
        return sized
    padded = Image.new("RGB", (max(width, least), max(height, least)))
    padded.paste(sized)
    return padded
