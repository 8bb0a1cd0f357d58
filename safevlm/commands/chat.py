"""`safevlm chat`."""

from __future__ import annotations

from safevlm.types import ReadText

from .options import AUTO, MINI, read_policy, rule_text


def chat(
    image: str,
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    guard: bool = True,
    policy: str | None = None,
    threshold: float | None = None,
    read_text: ReadText = "never",
    steer: str | None = None,
    max_new_tokens: int = 256,
    device: str = AUTO,
) -> int:
    """Chat about an image. Answers are streamed, and the guard may add a hint or refuse.

    Args:
        image: image file.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        prompt: a single question; without it a dialogue starts.
        guard: use the guard; --no_guard runs the plain backbone.
        policy: YAML file with thresholds and actions.
        threshold: scores from this on are unsafe, in place of the policy's thresholds.
        read_text: whether writing in the image is read, and its words assessed as a prompt: never, auto (where the
            head sees writing) or always; needs the extra ocr.
        steer: folder of a direction (of `safevlm steer fit`), along which VLM-Guard steers the prompt in the layers that it
            chose; with --no_guard the plain backbone is steered.
        max_new_tokens: maximum length of an answer, in tokens.
        device: torch device, such as cpu or cuda:0; auto is the GPU if there is one.
    """
    from contextlib import nullcontext

    from safevlm import terminal
    from safevlm.data import read_image
    from safevlm.guard import SafeVLM
    from safevlm.steering import Direction, VLMGuard

    pixels = read_image(image)
    model_ = SafeVLM.from_pretrained(
        model,
        backbone=backbone,
        policy=read_policy(policy, model, threshold),
        device_map=device,
        read_text=read_text,
    )
    method = None if steer is None else VLMGuard(Direction.load(steer), layers="chosen", steps="prefill")
    with (
        nullcontext() if guard else model_.disabled(),
        nullcontext() if method is None else model_.steered(method),
    ):
        if guard:
            rule = rule_text(policy, model_.policy, model_.config, threshold)
            terminal.show_assessments([image], model_.assess([pixels]), rule=rule)
        terminal.converse(model_, pixels, prompt, max_new_tokens=max_new_tokens)
    return 0
