"""Images with writing in them, and readers that know what is written in images of noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from safevlm import RiskScorer
from safevlm.config import Reading
from safevlm.types import ReadText


def written(text: str, side: int = 224, height: int = 18) -> Image.Image:
    """Black letters of Pillow's own font on a light ground."""
    image = Image.new("RGB", (side, side), (235, 230, 215))
    ImageDraw.Draw(image).multiline_text(
        (10, 30), text, fill="black", font=ImageFont.load_default(height), spacing=10
    )
    return image


@dataclass
class Knowing:
    """A reader that finds the images it was told of by their pixels; it notes the sizes of all that it is shown."""

    texts: Mapping[bytes, str | Exception]
    seen: list[tuple[int, int]] = field(default_factory=list)

    def read(self, image: Image.Image) -> str:
        self.seen.append(image.size)
        found = self.texts.get(image.tobytes(), "")
        if isinstance(found, Exception):
            raise found
        return found


def reading_scorer(
    scorer: RiskScorer, reader: Knowing, read_text: ReadText = "always", worth: Reading | None = None
) -> RiskScorer:
    """A scorer of the same modules that reads."""
    return RiskScorer(
        scorer.tower,
        scorer.safety,
        config=scorer.config.with_changes(reading=worth),
        policy=scorer.policy,
        prompt_table=scorer.prompt_table(),
        name=scorer.name,
        read_text=read_text,
        reader=reader,
    )


def reading(category: str, threshold: float) -> Reading:
    """Images with at least this P(category) are worth reading."""
    return Reading(category, threshold, data="tests", samples=1)
