"""Answers on disk: JSON lines that a later run goes on from, whatever ended the earlier one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from safevlm.errors import DataError


class AnswerCache:
    """Answers by key, in a file that grows by whole lines; a last line that was cut off is asked again.

    One process writes at a time.

    Args:
        path: of the file; made with its folder where it does not exist.

    Raises:
        DataError: a line in its midst is no answer.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers = _read(path) if path.exists() else {}

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> str | None:
        """The answer; None where there is none yet."""
        return self._answers.get(key)

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep answers; they are on the disk when this returns."""
        lines = "".join(json.dumps({"key": key, "answer": answer}) + "\n" for key, answer in answers.items())
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._answers.update(answers)


def image_digest(image: Image.Image | None) -> str:
    """SHA-256 of an image's size and pixels; "" without one."""
    return "" if image is None else hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def answer_key(model: str, prompt: str, image: str) -> str:
    """SHA-256 over who is asked, what is asked, and the image's digest."""
    return hashlib.sha256(json.dumps([model, prompt, image]).encode()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    answers = {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
            answers[str(row["key"])] = row["answer"] + ""
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: is no answer; delete the line, and it is asked again"
            ) from error
    if whole < len(data):  # a process was ended while it wrote
        with path.open("rb+") as file:
            file.truncate(whole)
    return answers
