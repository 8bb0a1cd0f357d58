"""Who is measured: a guard, a model of transformers, or a model on a server. Each gives an answer, or the reason for none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from safevlm.backbone import PlainModel
from safevlm.endpoint import Endpoint
from safevlm.errors import EndpointError
from safevlm.guard import SafeVLM
from safevlm.steering import Method


@dataclass(frozen=True)
class Answer:
    """What a target says; `failure` has the reason where it says nothing, and is asked again by a later run."""

    text: str
    failure: str = ""


class Target(Protocol):
    """Answers prompts, each with one RGB image or none."""

    @property
    def name(self) -> str:
        """For tables, and for the answers' cache: another name, another model."""
        ...

    def answer(
        self, images: Sequence[Image.Image | None], prompts: Sequence[str], *, max_new_tokens: int
    ) -> list[Answer]:
        """One answer per prompt, in order."""
        ...


@dataclass(frozen=True)
class GuardTarget:
    """A guard, or its plain backbone, steered or not.

    Args:
        guard: the model.
        name: of it.
        enabled: False: the plain backbone answers.
        methods: steer its answers.
    """

    guard: SafeVLM
    name: str
    enabled: bool = True
    methods: Sequence[Method] = ()

    def answer(
        self, images: Sequence[Image.Image | None], prompts: Sequence[str], *, max_new_tokens: int
    ) -> list[Answer]:
        """The replies' texts; a refusal of the policy is an answer."""
        with ExitStack() as stack:
            if not self.enabled:
                stack.enter_context(self.guard.disabled())
            for method in self.methods:
                stack.enter_context(self.guard.steered(method))
            replies = self.guard.generate(
                list(images), list(prompts), max_new_tokens=max_new_tokens, do_sample=False
            )
        return [Answer(reply.text) for reply in replies]


@dataclass(frozen=True)
class PlainTarget:
    """Any image-text-to-text model of transformers."""

    model: PlainModel
    name: str

    def answer(
        self, images: Sequence[Image.Image | None], prompts: Sequence[str], *, max_new_tokens: int
    ) -> list[Answer]:
        """The model's answers."""
        return [Answer(text) for text in self.model.answer(images, prompts, max_new_tokens=max_new_tokens)]


@dataclass(frozen=True)
class EndpointTarget:
    """A model on an OpenAI-compatible server; `workers` questions wait for it at a time."""

    endpoint: Endpoint
    workers: int = 8

    @property
    def name(self) -> str:
        """The model's name and the server's address."""
        return f"{self.endpoint.model} at {self.endpoint.url}"

    def answer(
        self, images: Sequence[Image.Image | None], prompts: Sequence[str], *, max_new_tokens: int
    ) -> list[Answer]:
        """The server's answers; where it fails, the reason."""

        def ask(image: Image.Image | None, prompt: str) -> Answer:
            try:
                return Answer(self.endpoint.ask(prompt, image, max_new_tokens=max_new_tokens).strip())
            except EndpointError as error:
                return Answer("", str(error))

        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(ask, images, prompts))


def version_of(name: str | Path) -> str:
    """The name, and for a folder a digest of its files' names, sizes and times: a model that is trained again is another one."""
    folder = Path(name)
    if not folder.is_dir():
        return str(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    return f"{name} {hashlib.sha256(repr(stamps).encode()).hexdigest()[:12]}"
