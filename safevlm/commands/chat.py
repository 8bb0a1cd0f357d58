"""`safevlm chat`."""

from __future__ import annotations

from .options import MINI, read_policy


def chat(
    image: str,
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    guard: bool = True,
    policy: str | None = None,
    max_new_tokens: int = 256,
    device: str | None = None,
) -> int:
    """Talk about an image; answers are streamed and respect the guard.

    Args:
        image: image file.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        prompt: ask this once and end, instead of a dialogue.
        guard: whether the guard is on; --no-guard gives the plain backbone.
        policy: YAML file with thresholds and actions.
        max_new_tokens: longest answer, in tokens.
        device: torch device of the whole model; cpu by default.
    """
    from contextlib import nullcontext

    from safevlm import terminal
    from safevlm.data import read_image
    from safevlm.guard import SafeVLM

    picture = read_image(image)
    model_ = SafeVLM.from_pretrained(
        model, backbone=backbone, policy=read_policy(policy, model), device_map=device
    )
    with nullcontext() if guard else model_.disabled():
        if guard:
            terminal.show_assessments([image], model_.assess([picture]))
        terminal.converse(model_, picture, prompt, max_new_tokens=max_new_tokens)
    return 0
