"""A batch of prompts on its way through the guard: opened, assessed, answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from safevlm.backbone import (
    Backbone,
    TowerPass,
    answer_texts,
    encode,
    injected,
    last_user_text,
    make_chat,
    restart_streamer,
    with_hint,
)
from safevlm.errors import UndecidedGateError
from safevlm.opening import open_image
from safevlm.policy import Decision, Policy
from safevlm.scorer import RiskScorer
from safevlm.steering import Batch, Method, steered
from safevlm.types import Action, Risk, RiskAssessment, SafeReply

from .arguments import Images, Prompts, with_images


@dataclass(frozen=True)
class RequestImage:
    """An image of a request.

    Args:
        image: RGB.
        number: which image of the batch's tower pass it is, from 0.
    """

    image: Image.Image
    number: int


@dataclass
class Request:
    """What is asked, what was decided, and what the LLM answered.

    Args:
        chat: the conversation, one image part per image.
        images: its images that could be read, in order.
        unreadable: why an image could not be read; empty where all could.
        assessment: of the riskiest image; None for text alone.
        decision: what the policy does.
        answer: the LLM's; empty for a request that is refused.
    """

    chat: list[dict[str, Any]]
    images: list[RequestImage] = field(default_factory=list)
    unreadable: str = ""
    assessment: RiskAssessment | None = None
    decision: Decision = field(default_factory=lambda: Decision(Action.ALLOW))
    answer: str = ""

    @property
    def refused(self) -> bool:
        """Whether the LLM is not asked."""
        return self.decision.action is Action.REFUSE

    @property
    def hinted_chat(self) -> list[dict[str, Any]]:
        """The conversation that the LLM reads: with the policy's hint where there is one."""
        return with_hint(self.chat, self.decision.hint) if self.decision.hint else self.chat

    def leave_undecided(self, reason: str, policy: Policy) -> None:
        """Let the policy decide anew, as something about the request could not be computed."""
        found = policy.assess(Risk(None, reason=reason))
        self.assessment = found if self.assessment is None else policy.riskiest([self.assessment, found])
        self.decision = policy.decide(self.assessment)

    def reply(self, refusal: str) -> SafeReply:
        """The reply to the user; `refusal` is the text of one that is refused."""
        return SafeReply(
            text=refusal if self.refused else self.answer,
            assessment=self.assessment,
            action=self.decision.action,
            hint=self.decision.hint,
        )


def images_of(requests: Sequence[Request]) -> list[RequestImage]:
    """The images of these requests, in order."""
    return [image for request in requests for image in request.images]


def open_requests(images: Images, prompts: Prompts, *, allow_urls: bool = False) -> list[Request]:
    """Check the counts and read the images.

    Args:
        allow_urls: whether images at http(s) URLs are fetched.

    Returns:
        One request per prompt, in order. Images are numbered from 0, those that could not be read left out.

    Raises:
        ValueError, TypeError: no prompts, counts that do not fit, a prompt with neither text nor image, or what
            `with_images`, `make_chat` and `open_image` refuse.
    """
    requests, count = list[Request](), 0
    for number, (prompt, given) in enumerate(with_images(images, prompts)):
        request = Request(make_chat(prompt, len(given)))
        if not given and not last_user_text(request.chat).strip():
            raise ValueError(f"prompt {number} is empty and has no image; write a prompt or give an image")
        for source in given:
            image = open_image(source, allow_urls=allow_urls)
            if isinstance(image, str):
                request.unreadable = image
            else:
                request.images.append(RequestImage(image, count))
                count += 1
        requests.append(request)
    return requests


def assess_requests(
    requests: Sequence[Request], scorer: RiskScorer, *, passed: TowerPass | None, policy: Policy
) -> None:
    """Fill in assessment and decision of every request that has images.

    Each image is assessed alone and together with its prompt, and with what is read in it; the riskiest counts.

    Args:
        passed: the tower's pass over the requests' images; None where none could be read.
    """
    found: list[RiskAssessment] = []
    if passed is not None:
        texts = [last_user_text(request.chat) for request in requests for _ in request.images]
        opened = [image.image for image in images_of(requests)]
        found = scorer.assess_projected(
            scorer.project(passed.views), [None, texts], images=opened.__getitem__, policy=policy
        )
    for request in requests:
        if request.unreadable:
            request.assessment = policy.assess(Risk(None, reason=request.unreadable))
            request.decision = Decision(Action.REFUSE)
        elif request.images:
            request.assessment = policy.riskiest([found[image.number] for image in request.images])
            request.decision = policy.decide(request.assessment)


def answer_requests(
    requests: Sequence[Request],
    backbone: Backbone,
    *,
    tokens: Tensor | None,
    passed: TowerPass | None,
    policy: Policy,
    steering: Sequence[Method],
    generation_kwargs: Mapping[str, Any],
) -> None:
    """Run the LLM over these requests and fill in their answers, once where steering can decide on all of them.

    A request on which it cannot is undecided: the policy refuses it, or it is answered with the policy's hint and
    without steering.

    Args:
        tokens: (count, dim) safety tokens to put before each image; None: none.
        passed: the tower's pass over the batch's images; None: the backbone runs the tower itself.
        steering: methods, in the order in which they act.
    """
    answer = partial(
        _answer, backbone=backbone, tokens=tokens, passed=passed, generation_kwargs=generation_kwargs
    )
    running, hinted = list(requests), list[Request]()
    while running:
        try:
            answer(running, steering=steering)
            break
        except UndecidedGateError as error:
            undecided = [running[row] for row in error.rows]
            for request in undecided:
                request.leave_undecided(str(error), policy)
            running = [request for row, request in enumerate(running) if row not in error.rows]
            hinted += [request for request in undecided if not request.refused]
            restart_streamer(generation_kwargs.get("streamer"))
    if hinted:
        answer(hinted, steering=())


def _answer(
    requests: Sequence[Request],
    *,
    backbone: Backbone,
    tokens: Tensor | None,
    passed: TowerPass | None,
    steering: Sequence[Method],
    generation_kwargs: Mapping[str, Any],
) -> None:
    """Run the LLM once; raises UndecidedGateError before it answers anything."""
    images = images_of(requests)
    chats = [request.hinted_chat for request in requests]
    inputs = encode(
        backbone,
        chats,
        [image.image for image in images],
        safety_tokens=0 if tokens is None else len(tokens),
        passed=passed,
        rows=[image.number for image in images],
    )
    batch = Batch(chats, [[image.image for image in request.images] for request in requests], inputs)
    with steered(backbone, batch, *steering), injected(backbone, inputs, tokens=tokens, passed=passed):
        made = backbone.model.generate(**backbone.on_device(inputs.tensors), **generation_kwargs)
    repeats = made.shape[0] // len(requests)
    answers = made[::repeats, inputs.tensors["input_ids"].shape[1] :]
    texts = answer_texts(backbone, answers, generation_kwargs)
    for request, text in zip(requests, texts, strict=True):
        request.answer = text.strip()
