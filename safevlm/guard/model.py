"""SafeVLM: backbone + scorer + policy. A risk and an answer that respects it, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from PIL import Image
from torch import nn

from safevlm import binding, checkpoint
from safevlm.backbone import Backbone, HubOptions, TowerPass, language_linears, load_backbone
from safevlm.config import SafetyConfig
from safevlm.model_card import model_card
from safevlm.modules import SafetyModules
from safevlm.opening import ImageLike
from safevlm.policy import Policy
from safevlm.scorer import RiskScorer
from safevlm.steering import Method
from safevlm.types import Chat, ReadText, RiskAssessment, SafeReply

from .arguments import Entry, Images, Prompts, prompt_list
from .losses import Hints, SafetyOutput, training_output
from .request import Request, answer_requests, assess_requests, images_of, open_requests
from .streaming import StreamedReply
from .switch import Switch


class SafeVLM(nn.Module, ModelHubMixin):
    """A frozen vision-language model with safety modules attached.

    Build it with `from_pretrained` or `attach`. `safety` holds all that is trained and saved here;
    the backbone stays frozen and in eval mode.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: SafetyConfig,
        *,
        safety: SafetyModules,
        policy: Policy | None = None,
        name: str = "",
        read_text: ReadText = "never",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.language_model = backbone.model
        self.safety = safety.eval()
        self.scorer = RiskScorer(
            backbone.tower,
            self.safety,
            config=config,
            policy=policy,
            prompt_table=backbone.prompt_table,
            name=name,
            read_text=read_text,
        )
        self._enabled = Switch(backbone.tower, around=partial(checkpoint.lora_disabled, backbone.model))
        self._tokens_enabled = Switch(backbone.tower)
        self._steering: tuple[Method, ...] = ()

    @classmethod
    def attach(
        cls,
        backbone: Backbone,
        config: SafetyConfig,
        *,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
        read_text: ReadText = "never",
    ) -> SafeVLM:
        """Put fresh, untrained safety modules on a backbone; sizes that depend on it are filled in.

        Args:
            backbone: frozen, as `load_backbone` gives it.
            config: sizes and taxonomy.
            policy: turns scores into actions; None: the taxonomy's default policy.
            safety_dtype: of the modules; None: see `from_pretrained`.
            read_text: which images are read for writing; see `RiskScorer`.

        Raises:
            ValueError: the policy is for another taxonomy.
        """
        tower, table = backbone.tower, backbone.prompt_table
        bound = binding.bind(config, tower, name=backbone.name, model_type=backbone.model_type, table=table)
        modules = binding.build_modules(bound).to(**binding.module_device_and_dtype(tower, safety_dtype))
        return cls(backbone, bound, safety=modules, policy=policy, read_text=read_text)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        backbone: str | Path | Backbone | None = None,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
        hub: HubOptions | None = None,
        read_text: ReadText = "never",
        **backbone_kwargs: Any,
    ) -> SafeVLM:
        """Load a checkpoint and the backbone that it names.

        Args:
            name: `"safevlm-mini"` (embedded), a folder, or a hub id.
            backbone: a loaded backbone or where it is; None: the backbone that the checkpoint names.
            safety_dtype: of the modules; None: float32, and bfloat16 beside a tower of 16 bits on a GPU.
            read_text: which images are read for writing: "never", "auto" or "always"; see `RiskScorer`.
            backbone_kwargs: `dtype`, `device_map`, `quantization_config`, ... as in transformers.

        Raises:
            CheckpointError: the checkpoint is not found, is damaged, or was trained on another backbone.
            BackboneError: the backbone is not found, or is of an unknown family.
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
        return cls(backbone, config, safety=modules, policy=policy, name=str(name), read_text=read_text)

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

    def __repr__(self) -> str:
        """Name, backbone, number of categories, device."""
        known = f"backbone={self.backbone.model_type!r}, {len(self.config.taxonomy.categories)} categories"
        mark = ", untrained" if self.config.untrained else ""
        return f"SafeVLM({self.scorer.name!r}, {known}, {self.device}{mark})"

    @property
    def config(self) -> SafetyConfig:
        """Sizes, taxonomy and calibration; assign to change them."""
        return self.scorer.config

    @config.setter
    def config(self, config: SafetyConfig) -> None:
        self.scorer.config = config

    @property
    def device(self) -> torch.device:
        """Where the backbone's input is; of one that is split over devices, the first."""
        found: torch.device = self.backbone.input_embeddings.weight.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """What the backbone computes in; the modules may have a dtype of their own."""
        found: torch.dtype = self.backbone.input_embeddings.weight.dtype
        return found

    @property
    def processor(self) -> Any:
        """The backbone's."""
        return self.backbone.processor

    @property
    def tokenizer(self) -> Any:
        """The backbone's."""
        return self.backbone.tokenizer

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

    @contextmanager
    def steered(self, method: Method) -> Iterator[None]:
        """Within the context answers are steered, in every thread; the methods of nested blocks all act, in order.

        Inside `disabled()` it steers the plain backbone.

        Raises:
            CheckpointError, ValueError: the method does not fit the backbone.
        """
        method.check(self.backbone)
        with self.backbone.tower.lock:
            self._steering = (*self._steering, method)
        try:
            yield
        finally:
            with self.backbone.tower.lock:
                last = len(self._steering) - 1 - self._steering[::-1].index(method)
                self._steering = self._steering[:last] + self._steering[last + 1 :]

    def assess(
        self,
        images: ImageLike | Iterable[ImageLike],
        prompts: str | Iterable[str] | None = None,
        **options: Any,
    ) -> list[RiskAssessment]:
        """Assess images, alone or with prompts; the arguments of `RiskScorer.assess`."""
        return self.scorer.assess(images, prompts, **options)

    @torch.no_grad()
    def generate(
        self,
        images: Images,
        prompts: Prompts,
        *,
        policy: Policy | None = None,
        steering: Method | None = None,
        allow_urls: bool = False,
        **generation_kwargs: Any,
    ) -> list[SafeReply]:
        """Answer a batch of prompts, each as the policy lets it.

        Args:
            images: per prompt None, an image of the kinds of `ImageLike`, or a list of images; None for text alone, and
                for chats with their images in them. A single image stands for a list of one.
            prompts: plain texts, or chats in the processor's form with one image part per image. A single one stands
                for a list of one, and `images` are its own: an image, a list of images, or None.
            policy: used instead of the model's own.
            steering: a method of `safevlm.steering`, after those of the `steered` blocks around.
            allow_urls: whether images at http(s) URLs are fetched (see `safevlm.data.fetch`).
            generation_kwargs: as in `transformers.generate` (`max_new_tokens`, `do_sample`, ...).

        Returns:
            One reply per prompt, in order. Each image is judged alone and together with the prompt, and with
            what is read in it, and the riskiest assessment decides, so that no words talk a risk down. A refused prompt
            does not reach the LLM; an image that cannot be read is undecided, and refused. Text
            without an image passes with assessment None. A prompt on which steering cannot decide is undecided, and
            refused or hinted at as the policy says, in `disabled()`, too.

        Raises:
            ValueError: no prompts, counts that do not fit, images both in a chat and beside it, or a prompt longer than
                the context.
            TypeError: a prompt or an image of no kind that is read.
            CheckpointError: the steering is of another model.
        """
        if generation_kwargs.get("return_dict_in_generate"):
            raise ValueError(
                "generate returns replies; for scores and states call the backbone's own generate"
            )
        requests = open_requests(images, prompts, allow_urls=allow_urls)
        with self.backbone.tower.lock:  # one call at a time: hooks and replayed features belong to it alone
            methods = self._steering if steering is None else (*self._steering, steering)
            return self._answer(requests, policy or self.policy, methods, generation_kwargs)

    def _answer(
        self,
        requests: Sequence[Request],
        policy: Policy,
        steering: Sequence[Method],
        generation_kwargs: Mapping[str, Any],
    ) -> list[SafeReply]:
        passed: TowerPass | None = None
        if self._enabled:
            if opened := [image.image for image in images_of(requests)]:
                passed = self.backbone.tower(self.backbone.tower.preprocess(opened))
            assess_requests(requests, self.scorer, passed=passed, policy=policy)
        elif bad := next((request.unreadable for request in requests if request.unreadable), ""):
            raise ValueError(f"the plain backbone cannot answer: {bad}")
        if running := [request for request in requests if not request.refused]:
            tokens = self.safety.tokens.prompt if self._enabled and self._tokens_enabled else None
            answer_requests(
                running,
                self.backbone,
                tokens=tokens,
                passed=passed,
                policy=policy,
                steering=steering,
                generation_kwargs=generation_kwargs,
            )
        return [request.reply(policy.refusal) for request in requests]

    def stream(
        self, image: Entry, prompt: str | Chat | Sequence[str | Chat], **options: Any
    ) -> StreamedReply:
        """Answer one prompt piece by piece; a refusal comes as one piece.

        Closing the reply stops the generation. Read it inside the `disabled()`, `without_tokens()` or
        `steered()` that it is meant for.

        Args:
            image: the prompt's: None, an image, or a list of images.
            prompt: a text or a chat.
            options: as in `generate`.

        Returns:
            What is iterated for the pieces, which make up the text that `generate` gives, and has that reply's `text`,
            `assessment`, `action` and `hint` afterwards.

        Raises:
            ValueError: several prompts. What `generate` raises is raised by the iteration.
        """
        prompts, single = prompt_list(prompt)
        if len(prompts) != 1:
            raise ValueError(
                f"stream answers one prompt, {len(prompts)} were given; call it once for each, or `generate` for all"
            )
        asked = prompts[0] if single else prompts
        return StreamedReply(self.backbone, partial(self.generate, image, asked), **options)

    def forward(
        self,
        images: Sequence[Image.Image | None],
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        hints: Hints = None,
        head_prompts: Sequence[str] | None = None,
        gradient_checkpointing: bool = False,
    ) -> SafetyOutput:
        """One training step's losses and logits; the arguments of `training_output`."""
        return training_output(
            self.backbone,
            self.safety,
            images,
            prompts,
            answers,
            hints=hints,
            head_prompts=head_prompts,
            gradient_checkpointing=gradient_checkpointing,
        )
