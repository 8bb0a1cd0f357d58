"""SafeVLM: backbone + scorer + policy. A risk and an answer that respects it, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from PIL import Image
from torch import Tensor, nn

from safevlm import binding, checkpoint
from safevlm.backbone import (
    Backbone,
    HubOptions,
    Inputs,
    TowerPass,
    answer_texts,
    checkpointed_layers,
    encode,
    fill_placeholders,
    language_linears,
    last_user_text,
    load_backbone,
    make_chat,
    with_hint,
)
from safevlm.config import SafetyConfig
from safevlm.model_card import model_card
from safevlm.modules import SafetyModules, answer_losses
from safevlm.policy import Decision, Policy
from safevlm.scorer import RiskScorer
from safevlm.types import Action, Chat, ImageLike, Risk, RiskAssessment, SafeReply
from safevlm.viewing import ViewOutput, view_output

from .request import Images, Request, open_requests
from .streaming import stream_reply
from .switch import Switch


@dataclass(frozen=True)
class SafetyOutput:
    """What a training step needs.

    Args:
        lm_losses: (B,) mean cross-entropy of each answer's tokens, in nats.
        head: of each row that has an image, in order; None where no row has one.
    """

    lm_losses: Tensor
    head: ViewOutput | None

    @property
    def lm_loss(self) -> Tensor:
        """Mean over the answers, each counting the same whatever its length."""
        return self.lm_losses.mean()


class SafeVLM(nn.Module, ModelHubMixin):
    """A frozen vision-language model with safety modules attached.

    Build it with `from_pretrained` or `attach`. `safety` holds all that is trained and saved here;
    the backbone stays frozen and in eval mode.
    """

    def __init__(
        self, backbone: Backbone, config: SafetyConfig, *, safety: SafetyModules, policy: Policy | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.language_model = backbone.model
        self.config = config
        self.safety = safety.eval()
        self.scorer = RiskScorer(
            backbone.tower, self.safety, config=config, policy=policy, prompt_table=backbone.prompt_table
        )
        self._enabled = Switch(backbone.tower, around=partial(checkpoint.lora_disabled, backbone.model))
        self._tokens_enabled = Switch(backbone.tower)

    @classmethod
    def attach(
        cls,
        backbone: Backbone,
        config: SafetyConfig,
        *,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
    ) -> SafeVLM:
        """Fresh, untrained safety modules on a backbone; sizes that depend on it are filled in."""
        tower, table = backbone.tower, backbone.prompt_table
        bound = binding.bind(config, tower, name=backbone.name, model_type=backbone.model_type, table=table)
        modules = binding.build_modules(bound).to(**binding.module_device_and_dtype(tower, safety_dtype))
        return cls(backbone, bound, safety=modules, policy=policy)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        backbone: str | Path | Backbone | None = None,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
        hub: HubOptions | None = None,
        **backbone_kwargs: Any,
    ) -> SafeVLM:
        """Load a checkpoint and the backbone that it names.

        Args:
            name: `"safevlm-mini"` (embedded), a folder, or a hub id.
            backbone: a loaded backbone or where it is, in place of what the checkpoint says.
            safety_dtype: of the modules; None: float32, and bfloat16 beside a tower of 16 bits on a GPU.
            backbone_kwargs: `dtype`, `device_map`, `quantization_config`, ... as in transformers.

        Raises:
            CheckpointError, BackboneError: what is missing or does not fit, and the remedy.
        """
        hub = hub or HubOptions()
        folder = checkpoint.fetch(name, **hub.download)
        config = checkpoint.load_config(folder)
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(
                binding.backbone_location(config, backbone), hub=hub.without_revision, **backbone_kwargs
            )
        binding.check_tower(config, backbone.tower, folder)
        binding.check_prompt_table(config, backbone.prompt_table, folder / checkpoint.CONFIG)
        if config.has_lora:
            checkpoint.load_lora(folder, backbone.model, language_linears(backbone.model))
        modules = binding.load_modules(
            folder, config, **binding.module_device_and_dtype(backbone.tower, safety_dtype)
        )
        guard = cls(backbone, config, safety=modules, policy=policy)
        guard.scorer.name, guard.scorer.hub = str(name), hub.without_revision
        return guard

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: None = None,
        model_card_kwargs: None = None,
        **push_kwargs: Any,
    ) -> str | None:
        """Write the adapter alone (config, modules, LoRA, model card), and push it where asked to.

        Args:
            repo_id: on the hub; the folder's name when None.
            config, model_card_kwargs: huggingface_hub's mixin passes them; the checkpoint has its own.
        """
        folder = Path(save_directory)
        self._save_pretrained(folder)
        return self.push_to_hub(repo_id or folder.name, **push_kwargs) if push_to_hub else None

    def _save_pretrained(self, save_directory: Path) -> None:
        config = self.config.with_changes(has_lora=self.has_lora)
        checkpoint.save(save_directory, config, self.safety.state_dict(), card=model_card(config))
        if self.has_lora:
            checkpoint.save_lora(save_directory, self.language_model)

    @property
    def policy(self) -> Policy:
        """Thresholds, actions and hints in use; assign to change them."""
        return self.scorer.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.scorer.policy = policy

    @property
    def has_lora(self) -> bool:
        """Whether the LLM carries LoRA layers."""
        return bool(getattr(self.language_model, "peft_config", None))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context the plain backbone answers, in every thread: no tokens, hints, refusals or LoRA."""
        with self._enabled.off():
            yield

    @contextmanager
    def without_tokens(self) -> Iterator[None]:
        """Within the context the LLM gets no safety tokens; all else stays."""
        with self._tokens_enabled.off():
            yield

    def assess(
        self, images: Sequence[ImageLike], prompts: Sequence[str] | None = None, **options: Any
    ) -> list[RiskAssessment]:
        """Assess images, alone or with prompts; the arguments of `RiskScorer.assess`."""
        return self.scorer.assess(images, prompts, **options)

    @torch.no_grad()
    def generate(
        self,
        images: Images,
        prompts: Sequence[str | Chat],
        *,
        policy: Policy | None = None,
        **generation_kwargs: Any,
    ) -> list[SafeReply]:
        """Answer a batch of prompts, each as the policy lets it.

        Args:
            images: per prompt None, an image or a list of images; None for text alone.
            prompts: plain texts, or chats in the processor's form with one image part per image.
            policy: in place of the model's own.
            generation_kwargs: as in `transformers.generate` (`max_new_tokens`, `do_sample`, ...).

        Returns:
            One reply per prompt, in order. Each image is judged alone and together with the prompt,
            and the riskier assessment decides, so that no prompt talks a risk down. A refused prompt
            does not reach the LLM; an image that cannot be read is undecided, and refused. Text
            without an image passes with assessment None.

        Raises:
            ValueError: no prompts, counts that do not fit, or a prompt longer than the context.
        """
        if generation_kwargs.get("return_dict_in_generate"):
            raise ValueError(
                "generate returns replies; for scores and states call the backbone's own generate"
            )
        with self.backbone.tower.lock:  # one call at a time: hooks and replayed features belong to it alone
            return self._generate(images, prompts, policy or self.policy, generation_kwargs)

    def _generate(
        self,
        images: Images,
        prompts: Sequence[str | Chat],
        policy: Policy,
        generation_kwargs: Mapping[str, Any],
    ) -> list[SafeReply]:
        requests, opened = open_requests(images, prompts)
        tower = self.backbone.tower
        passed: TowerPass | None = None
        if self._enabled:
            passed = tower(tower.preprocess(opened)) if opened else None
            self._assess_requests(requests, passed, policy)
        elif bad := next((request.unreadable for request in requests if request.unreadable), ""):
            raise ValueError(f"the plain backbone cannot answer: {bad}")
        running = [request for request in requests if request.decision.action is not Action.REFUSE]
        texts = iter(self._answer(running, opened, passed, generation_kwargs) if running else [])
        return [
            SafeReply(
                text=policy.refusal if request.decision.action is Action.REFUSE else next(texts),
                assessment=request.assessment,
                action=request.decision.action,
                hint=request.decision.hint,
            )
            for request in requests
        ]

    def stream(
        self,
        image: ImageLike | Sequence[ImageLike] | None,
        prompt: str | Chat,
        *,
        policy: Policy | None = None,
        **generation_kwargs: Any,
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; a refusal comes as one piece. Arguments as in `generate`.

        Closing the iterator stops the generation. Read it inside the `disabled()` or
        `without_tokens()` that it is meant for.
        """
        generate = partial(self.generate, [image], [prompt], policy=policy, **generation_kwargs)
        return stream_reply(self.backbone, generate)

    def forward(
        self,
        images: Sequence[Image.Image | None],
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        hints: Sequence[str] | None = None,
        head_prompts: Sequence[str] | None = None,
        gradient_checkpointing: bool = False,
    ) -> SafetyOutput:
        """One training step's losses and logits: one prompt and answer per row, and an image or None.

        Args:
            images: RGB images.
            hints: one per row, put before the prompt; an empty one leaves it as it is.
            head_prompts: one per row, what the head reads; an empty one means the image alone, None the prompts.
            gradient_checkpointing: as in `answer_losses`.
        """
        rows = [row for row, image in enumerate(images) if image is not None]
        tower = self.backbone.tower
        passed = tower(tower.preprocess([image for image in images if image is not None])) if rows else None
        texts = prompts if head_prompts is None else head_prompts
        head = None if passed is None else self.head(passed, [texts[row] for row in rows])
        more: dict[str, Any] = {"passed": passed, "gradient_checkpointing": gradient_checkpointing}
        losses = self.answer_losses(images, prompts, answers, hints=hints, **more)
        return SafetyOutput(losses, head)

    def head(self, passed: TowerPass, prompts: Sequence[str]) -> ViewOutput:
        """The plain modules on a tower's pass, with gradients; one prompt per image, "" for none."""
        return view_output(
            self.safety,
            passed.views,
            like=self.safety.projector.last.weight,
            pool_grid=self.config.pool_grid,
            table=self.backbone.prompt_table,
            prompts=prompts,
        )

    def answer_losses(
        self,
        images: Sequence[Image.Image | None],
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        hints: Sequence[str] | None = None,
        passed: TowerPass | None = None,
        gradient_checkpointing: bool = False,
    ) -> Tensor:
        """The language model's part of `forward`: (B,) mean cross-entropy of each answer's tokens.

        Args:
            passed: the tower's pass over the images that are not None, where there is one already.
            gradient_checkpointing: run the LLM's layers again in the backward pass, to save memory.
        """
        given = [image for image in images if image is not None]
        if given and passed is None:
            passed = self.backbone.tower(self.backbone.tower.preprocess(given))
        chats = [make_chat(p, int(i is not None)) for p, i in zip(prompts, images, strict=True)]
        if hints is not None:
            chats = [with_hint(chat, hint) if hint else chat for chat, hint in zip(chats, hints, strict=True)]
        tokens = self.config.num_tokens
        inputs = encode(self.backbone, chats, given, safety_tokens=tokens, answers=answers, passed=passed)
        recomputed = (
            checkpointed_layers(self.backbone.decoder_layers) if gradient_checkpointing else nullcontext()
        )
        with recomputed, self._in_place(inputs, passed, range(len(given)), [1] * len(given)):
            logits = self.language_model(**self.backbone.on_device(inputs.tensors), use_cache=False).logits
        assert inputs.labels is not None  # answers were given
        return answer_losses(logits, inputs.labels)

    def _assess_requests(self, requests: list[Request], passed: TowerPass | None, policy: Policy) -> None:
        """Fill in assessment and decision of every request that has images."""
        owners = [request for request in requests for _ in request.images]
        found: list[RiskAssessment] = []
        if passed is not None:
            texts = [last_user_text(request.chat) for request in owners]
            views = self.scorer.project(passed.views)
            pairs = [self.scorer.assess_views(views, read, policy=policy) for read in (None, texts)]
            found = [policy.riskiest(list(pair)) for pair in zip(*pairs, strict=True)]
        for request in requests:
            if request.unreadable:
                request.assessment = policy.assess(Risk(None, reason=request.unreadable))
                request.decision = Decision(Action.REFUSE)
            elif request.images:
                request.assessment = policy.riskiest([found[row] for row in request.images])
                request.decision = policy.decide(request.assessment)

    def _answer(
        self,
        requests: list[Request],
        opened: Sequence[Image.Image],
        passed: TowerPass | None,
        generation_kwargs: Mapping[str, Any],
    ) -> list[str]:
        """Run the LLM once over these requests, on the vision features of their images."""
        chats = [
            with_hint(request.chat, request.decision.hint) if request.decision.hint else request.chat
            for request in requests
        ]
        rows = [row for request in requests for row in request.images]
        count = self.config.num_tokens if self._enabled and self._tokens_enabled else 0
        given = [opened[row] for row in rows]
        inputs = encode(self.backbone, chats, given, safety_tokens=count, passed=passed, rows=rows)
        with self._in_place(inputs, passed, rows, [len(request.images) for request in requests]):
            made = self.language_model.generate(
                **self.backbone.on_device(inputs.tensors), **generation_kwargs
            )
        repeats = made.shape[0] // len(requests)
        answers = made[::repeats, inputs.tensors["input_ids"].shape[1] :]
        return [text.strip() for text in answer_texts(self.backbone, answers, generation_kwargs)]

    @contextmanager
    def _in_place(
        self, inputs: Inputs, passed: TowerPass | None, images: Sequence[int], counts: Sequence[int]
    ) -> Iterator[None]:
        """Within the context the backbone sees safety tokens and earlier features of `images`, `counts` per prompt."""
        with ExitStack() as stack:
            stack.enter_context(self.backbone.tower.lock)
            if inputs.token_mask is not None:
                tokens = self.safety.tokens.prompt
                stack.enter_context(
                    fill_placeholders(self.backbone.input_embeddings, tokens, inputs.token_mask)
                )
            if passed is not None and len(images):
                stack.enter_context(self.backbone.replay(passed, images, counts))
            yield
