"""RiskScorer: a frozen vision tower + safety modules -> risk. Needs no LLM."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from safevlm import binding, checkpoint
from safevlm.backbone import HubOptions, PromptTable, TowerInputs, Views, VisionTower, is_timm
from safevlm.calibration import logit_risks
from safevlm.config import SafetyConfig
from safevlm.errors import CheckpointError
from safevlm.lettering import OpenImage, Prompts, TextReader, Writing, open_lettering, questions
from safevlm.model_card import UNTRAINED, model_card
from safevlm.modules import KeptFold, SafetyModules
from safevlm.opening import ImageLike, image_list, open_image, text_list
from safevlm.policy import Policy
from safevlm.taxonomy import Taxonomy
from safevlm.types import ReadText, Risk, RiskAssessment
from safevlm.viewing import Heatmap, ViewOutput, assess_views, view_output


class RiskScorer:
    """Scores images from a vision tower's features.

    Args:
        tower: the frozen tower.
        safety: the modules that belong to it.
        config: their sizes, taxonomy and calibration.
        policy: turns scores into verdicts; None: the default policy at the checkpoint's operating point.
        prompt_table: what reads prompts; loaded at the first prompt when None.
        name: of the checkpoint; the backbone's when empty.
        location: where the backbone is whose prompt table is loaded; the config's backbone when empty.
        hub: how its files are found.
        read_text: which images are read for writing, whose words are assessed as a prompt's are: "never"; "auto":
            those in which the head sees writing, by the checkpoint's `reading`; "always".
        reader: what reads; None: rapidocr, of the extra `ocr`.

    Raises:
        CheckpointError: the modules cannot use what is read, or do not say which images are worth reading.
        MissingExtraError: the reader is not installed.
    """

    def __init__(
        self,
        tower: VisionTower,
        safety: SafetyModules,
        *,
        config: SafetyConfig,
        policy: Policy | None = None,
        prompt_table: PromptTable | None = None,
        name: str = "",
        location: str = "",
        hub: HubOptions | None = None,
        read_text: ReadText = "never",
        reader: TextReader | None = None,
    ) -> None:
        self.tower = tower
        self.safety = safety
        self.config = config
        self.policy = policy or Policy(config.taxonomy, threshold=config.threshold)
        self.policy.check_fits(config.taxonomy)
        self.name = name or config.backbone
        self._location, self._hub = location or config.backbone, hub or HubOptions()
        self._prompt_table = prompt_table
        self.read_text, self.lettering = read_text, open_lettering(read_text, config, reader)
        self._fold = KeptFold(safety)
        self._warned = False

    def __repr__(self) -> str:
        """Name, tower, number of categories, device."""
        known = f"tower={self.tower.model_type!r}, {len(self.config.taxonomy.categories)} categories, {self.device}"
        return f"RiskScorer({self.name!r}, {known}{', untrained' if self.config.untrained else ''})"

    @property
    def device(self) -> torch.device:
        """Where tower and modules are."""
        return self.tower.device

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in; the modules may have a dtype of their own."""
        return self.tower.dtype

    @property
    def processor(self) -> Any:
        """The tower's image processor."""
        return self.tower.image_processor

    @property
    def tokenizer(self) -> Any:
        """The LLM's, which reads prompts; raises what `prompt_table` does."""
        return self.prompt_table().tokenizer

    def to(self, *args: Any, **kwargs: Any) -> RiskScorer:
        """Move tower and modules, in place, by the arguments of `torch.nn.Module.to`; returns the scorer itself.

        A dtype is the tower's; the modules then get theirs as when they are loaded (see `from_pretrained`).
        """
        before, table = self.dtype, self._prompt_table
        self.tower.module.to(*args, **kwargs)
        recast = binding.module_device_and_dtype(self.tower) if self.dtype != before else {}
        self.safety.to(**{"device": self.device, **recast})
        self._prompt_table = table and replace(table, weight=table.weight.to(self.device))
        return self

    @classmethod
    def attach(
        cls,
        tower: str | Path | nn.Module | VisionTower,
        config: SafetyConfig | None = None,
        *,
        image_processor: Any = None,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
        hub: HubOptions | None = None,
        **tower_kwargs: Any,
    ) -> RiskScorer:
        """Put fresh, untrained safety modules on a vision tower alone; they read no prompts.

        Args:
            tower: `timm:` and a name or folder of timm; hub id or folder of a CLIP or SigLIP model or of a
                vision-language model, whose tower alone is read; or such a module in memory.
            config: sizes and taxonomy; `vision_layer` and `text_dim` may be chosen freely.
            image_processor: of a module in memory.
            safety_dtype: of the modules; None: see `from_pretrained`.
            tower_kwargs: `dtype`, `device_map`, `attn_implementation`, as in `from_pretrained`.

        Raises:
            BackboneError: the tower is not found, is of an unknown kind, or does not have `vision_layer`.
        """
        config, hub = config or SafetyConfig(Taxonomy.preset("safevlm")), hub or HubOptions()
        opened = binding.open_tower(
            tower, layer=config.vision_layer, image_processor=image_processor, hub=hub, **tower_kwargs
        )
        bound = binding.bind(config, opened, name=str(tower) if isinstance(tower, (str, Path)) else "")
        safety = binding.build_modules(bound).to(**binding.module_device_and_dtype(opened, safety_dtype))
        return cls(opened, safety.eval(), config=bound, policy=policy, hub=hub)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        backbone: str | Path | VisionTower | None = None,
        policy: Policy | None = None,
        safety_dtype: torch.dtype | str | None = None,
        hub: HubOptions | None = None,
        read_text: ReadText = "never",
        **tower_kwargs: Any,
    ) -> RiskScorer:
        """Load a checkpoint and its backbone's tower; the LLM's tensors are not read.

        Args:
            name: `"safevlm-mini"`, a folder, or a hub id.
            backbone: where the backbone or a tower of the same weights is (see `attach`), or that tower; None:
                the backbone that the checkpoint names.
            safety_dtype: of the modules; None: float32, and bfloat16 beside a tower of 16 bits on a GPU.
            read_text: which images are read for writing: "never", "auto" or "always".
            tower_kwargs: as in transformers: `dtype` (None: the files' own, and float32 on a CPU),
                `device_map` (one device; None: the CPU), `attn_implementation`.

        Raises:
            CheckpointError: the checkpoint is not found, is damaged, or was trained on another tower.
            BackboneError: the backbone is not found, or no known tower is in it.
        """
        hub = hub or HubOptions()
        folder = checkpoint.fetch(name, **hub.download)
        hub = hub.without_revision  # the backbone is a second repository
        config = checkpoint.load_config(folder)
        source = (
            backbone if isinstance(backbone, VisionTower) else binding.backbone_location(config, backbone)
        )
        tower = binding.open_tower(
            source, layer=config.vision_layer, image_processor=None, hub=hub, **tower_kwargs
        )
        binding.check_tower(config, tower, folder)
        safety = binding.load_modules(folder, config, **binding.module_device_and_dtype(tower, safety_dtype))
        # a tower in memory or of timm has no LLM: its embeddings are where the checkpoint says
        location = "" if isinstance(source, VisionTower) or is_timm(source) else str(source)
        return cls(
            tower, safety, config=config, policy=policy, name=str(name), location=location, hub=hub, read_text=read_text
        )  # fmt: skip

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the modules alone: config, weights, model card; loads again with equal scores.

        Raises:
            CheckpointError: the checkpoint has LoRA layers on its LLM, which are not here.
        """
        if self.config.has_lora:
            raise CheckpointError(
                f"{self.name} has LoRA layers on its LLM, which a RiskScorer does not load and would lose; "
                "load and save it with SafeVLM"
            )
        checkpoint.save(folder, self.config, self.safety.state_dict(), card=model_card(self.config))

    def compile(self, **options: Any) -> None:
        """Compile tower and projector with `torch.compile`, whose arguments these are.

        The modules themselves stay as they are, trained and saved; an answer reads the compiled tower's features.
        """
        self.tower.compile(**options)
        self._fold.compile(**options)

    def assess(
        self,
        images: ImageLike | Iterable[ImageLike],
        prompts: str | Iterable[str] | None = None,
        *,
        heatmap: Heatmap = False,
        policy: Policy | None = None,
        batch_size: int = 32,
        allow_urls: bool = False,
    ) -> list[RiskAssessment]:
        """Assess each image, alone or together with a prompt.

        Args:
            images: of the kinds of `ImageLike`; a single one stands for a list of one.
            prompts: one per image, a single one for a list of one; an empty one means the image alone.
            heatmap: whether to return the head's attention over the image; "flagged": only for images that
                are not safe.
            policy: used instead of the scorer's own.
            batch_size: images per tower pass.
            allow_urls: whether images at http(s) URLs are fetched (see `safevlm.data.fetch`).

        Returns:
            One assessment per image, in order. An image that cannot be opened, or a score that is not
            a finite number, is undecided with the reason. Where writing is read, the riskier assessment counts,
            with what was read or not (see `assess_projected`).

        Raises:
            ValueError: no images, not as many prompts as images, or a policy for another taxonomy.
            CheckpointError: prompts are given, and the modules read none or belong to another LLM.
            TypeError: a prompt that is not text, or an image of no kind that is read.
        """
        images = image_list(images)
        asked = text_list(prompts, images=len(images))
        policy = policy or self.policy
        results: dict[int, RiskAssessment] = {}
        for start in range(0, len(images), batch_size):
            read: dict[int, Image.Image] = {}
            for row in range(start, min(start + batch_size, len(images))):
                image = open_image(images[row], allow_urls=allow_urls)
                if isinstance(image, str):
                    results[row] = policy.assess(Risk(None, reason=image))
                else:
                    read[row] = image
            if read:
                texts = None if asked is None else [asked[row] for row in read]
                opened = list(read.values())
                inputs, own = self.preprocess(opened), opened.__getitem__
                found = self.assess_inputs(inputs, texts, images=own, heatmap=heatmap, policy=policy)
                results |= zip(read, found, strict=True)
        return [results[row] for row in range(len(images))]

    __call__ = assess

    def preprocess(self, images: Sequence[Image.Image]) -> TowerInputs:
        """RGB images -> what `assess_inputs` takes, on the CPU; any thread may call it."""
        return self.tower.preprocess(images)

    @property
    def scaled_side(self) -> int | None:
        """Pixels on the side that `preprocess` scales an image of any size to; None where that depends on the image."""
        return self.tower.preprocessor.scaled_side

    def assess_inputs(
        self,
        inputs: TowerInputs,
        prompts: Sequence[str] | None = None,
        *,
        images: OpenImage | None = None,
        heatmap: Heatmap = False,
        policy: Policy | None = None,
    ) -> list[RiskAssessment]:
        """Assess images that are preprocessed; the arguments of `assess`, one assessment per image.

        Args:
            images: gives those whose writing is read; needed unless `read_text` is "never".
        """
        projected = self.project(self.tower(inputs, for_replay=False).views)
        return self.assess_projected(projected, [prompts], images=images, heatmap=heatmap, policy=policy)

    def assess_projected(
        self,
        projected: Views,
        asked: Sequence[Prompts],
        *,
        images: OpenImage | None = None,
        heatmap: Heatmap = False,
        policy: Policy | None = None,
    ) -> list[RiskAssessment]:
        """Assess each image once with every entry of `asked`, and with what is read in it; the riskiest counts.

        The image alone shows that there is writing, not what it says. So where words are found, the category that
        stands for writing loses its share of these assessments (`Policy.without`), and the words are assessed as
        a prompt, alone and after the image's own: harmless words excuse themselves and nothing else in the image.
        Where nothing is found, more than is assessed, or reading fails, the assessments stay as they are.

        Args:
            projected: views of `project`.
            asked: at least one entry.
            images: gives those whose writing is read; needed unless `read_text` is "never".
        """
        if self.config.untrained and not self._warned:
            self._warned = True
            logging.getLogger(__name__).warning("%s: %s", self.name or "this model", UNTRAINED)
        policy = policy or self.policy
        assess = partial(self.assess_output, heatmap=heatmap, policy=policy)
        outputs = [self.score(projected, prompts) for prompts in asked]
        writings = [Writing()] * len(projected)
        if self.lettering is not None:
            alone = outputs[asked.index(None)] if None in asked else self.score(projected)
            writings = self.lettering.writings(alone.by_image(self.risks(alone)), images)
        words = {number for number, writing in enumerate(writings) if writing.text and not writing.cut}
        found: list[list[RiskAssessment]] = [[] for _ in writings]
        for prompts, output in zip(asked, outputs, strict=True):
            for number, one in enumerate(assess(output, without_writing=words)):
                prompted = bool(prompts and prompts[number])
                found[number].append(replace(one, decided_by="prompt") if prompted else one)
        for texts in questions(writings, asked):
            output = self.score(projected.of(list(texts)), list(texts.values()))
            for number, one in zip(texts, assess(output), strict=True):
                found[number].append(replace(one, decided_by="read_text"))
        return [
            replace(one, read_text=writing.text, reason=one.reason or writing.reason)
            for one, writing in zip(map(policy.riskiest, found), writings, strict=True)
        ]

    def project(self, views: Views) -> Views:
        """The projector's hidden states in place of a tower's features, in the modules' dtype, on their device.

        This is most of the modules' work and reads no prompt: assessments with several prompts can share it.
        """
        folded = self._fold()
        groups = [
            replace(group, features=folded.hidden(group.features, group.grid))
            for group in views.to(self.safety.projector.last.weight).groups
        ]
        return replace(views, groups=tuple(groups))

    def score(self, projected: Views, prompts: Sequence[str] | None = None) -> ViewOutput:
        """The head on views of `project`, folded; one prompt per image, "" for none."""
        return view_output(
            self._fold().pool,
            projected,
            pool_grid=self.config.pool_grid,
            table=self.prompt_table() if any(prompts or ()) else None,
            prompts=prompts,
        )

    def assess_output(
        self,
        output: ViewOutput,
        *,
        heatmap: Heatmap = False,
        policy: Policy | None = None,
        without_writing: Collection[int] = (),
    ) -> list[RiskAssessment]:
        """Assess what `score` gave; one assessment per image, that of its riskiest view.

        Args:
            without_writing: numbers of images whose risk loses the share of the category that stands for writing.

        Raises:
            ValueError: the policy is for another taxonomy.
        """
        policy = policy or self.policy
        policy.check_fits(self.config.taxonomy)
        risks, reading = self.risks(output), self.config.reading
        for view, owner in enumerate(output.views.owners):
            if reading is not None and owner in without_writing:
                risks[view] = policy.without(risks[view], reading.category)
        return assess_views(output, risks, policy=policy, heatmap=heatmap)

    def risks(self, output: ViewOutput) -> list[Risk]:
        """Calibrated probabilities of each view; one with a logit that is not finite has no score."""
        return logit_risks(output.level_logits, output.category_logits, self.config)

    def prompt_table(self) -> PromptTable:
        """The tokenizer and embeddings of the LLM, on the tower's device, loaded at the first call.

        Raises:
            BackboneError: the LLM's files are not found.
            CheckpointError: the modules read no prompts, or were trained on another LLM.
        """
        if self._prompt_table is None:
            table = binding.open_prompt_table(self.config, self._location, name=self.name, hub=self._hub)
            self._prompt_table = replace(table, weight=table.weight.to(self.device))
        return self._prompt_table
