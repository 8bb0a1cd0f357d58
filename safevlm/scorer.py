"""RiskScorer: a frozen vision tower + safety modules -> risk. Needs no LLM."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from safevlm import binding, checkpoint
from safevlm.backbone import (
    HubOptions,
    PromptTable,
    TowerInputs,
    Views,
    VisionTower,
    is_timm,
    load_prompt_table,
)
from safevlm.calibration import level_probabilities
from safevlm.config import SafetyConfig
from safevlm.errors import CheckpointError
from safevlm.lettering import OpenImage, Prompts, TextReader, Writing, open_lettering, questions
from safevlm.model_card import model_card
from safevlm.modules import FoldedScorer, SafetyModules, fold, folded_weights
from safevlm.opening import check_arguments, open_image
from safevlm.policy import Policy
from safevlm.taxonomy import Taxonomy
from safevlm.types import ImageLike, ReadText, Risk, RiskAssessment
from safevlm.viewing import Heatmap, ViewOutput, assess_views, view_output

NOT_FINITE = "the safety head gave a value that is not finite; check the weights and the image's features"


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
        self._folded: tuple[tuple[int, ...], FoldedScorer] | None = None
        self._compile_options: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_folded": None, "_compile_options": None}  # compiled code stays in its process

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
        self._compile_options, self._folded = options, None

    def assess(
        self,
        images: Sequence[ImageLike],
        prompts: Sequence[str] | None = None,
        *,
        heatmap: Heatmap = False,
        policy: Policy | None = None,
        batch_size: int = 32,
    ) -> list[RiskAssessment]:
        """Assess each image, alone or together with a prompt.

        Args:
            images: PIL images, paths or encoded bytes.
            prompts: one per image; an empty one means the image alone.
            heatmap: whether to return the head's attention over the image; "flagged": only for images that
                are not safe.
            policy: used instead of the scorer's own.
            batch_size: images per tower pass.

        Returns:
            One assessment per image, in order. An image that cannot be opened, or a score that is not
            a finite number, is undecided with the reason. Where writing is read, the riskier assessment counts,
            with what was read or not (see `assess_projected`).

        Raises:
            ValueError: no images, not as many prompts as images, or a policy for another taxonomy.
            CheckpointError: prompts are given, and the modules read none or belong to another LLM.
            TypeError: a prompt that is not text.
        """
        check_arguments(images, prompts)
        policy = policy or self.policy
        results: list[RiskAssessment] = []
        for start in range(0, len(images), batch_size):
            opened = [open_image(image) for image in images[start : start + batch_size]]
            rows = [row for row, image in enumerate(opened) if not isinstance(image, str)]
            found: Iterator[RiskAssessment] = iter(())
            if rows:
                texts = None if prompts is None else [prompts[start + row] for row in rows]
                read = [image for image in opened if not isinstance(image, str)]
                inputs, own = self.preprocess(read), read.__getitem__
                found = iter(self.assess_inputs(inputs, texts, images=own, heatmap=heatmap, policy=policy))
            results += [
                policy.assess(Risk(None, reason=image)) if isinstance(image, str) else next(found)
                for image in opened
            ]
        return results

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
        risks = self.risks(output)
        if self.config.reading is not None and without_writing:
            for view, owner in enumerate(output.views.owners):
                if owner in without_writing:
                    risks[view] = policy.without(risks[view], self.config.reading.category)
        return assess_views(output, risks, policy=policy, heatmap=heatmap)

    def risks(self, output: ViewOutput) -> list[Risk]:
        """Calibrated probabilities of each view, computed in float64; a view with a logit that is not finite has no score."""
        taxonomy, calibration = self.config.taxonomy, self.config.calibration
        levels = level_probabilities(output.level_logits, calibration).cpu()
        categories = output.category_logits.double().softmax(-1).cpu()
        risks = []
        for level, category in zip(levels, categories, strict=True):
            if not bool(torch.isfinite(level).all() and torch.isfinite(category).all()):
                risks.append(Risk(None, reason=NOT_FINITE))
                continue
            by_level = dict(zip(taxonomy.levels, level.tolist(), strict=True))
            by_category = dict(zip(taxonomy.category_names, category.tolist(), strict=True))
            score = min(1.0, max(0.0, 1.0 - float(level[0])))
            risks.append(Risk(score, by_level, by_category, calibrated=calibration is not None))
        return risks

    def prompt_table(self) -> PromptTable:
        """The tokenizer and embeddings of the LLM, on the tower's device, loaded at the first call.

        Raises:
            BackboneError: the LLM's files are not found.
            CheckpointError: the modules read no prompts, or were trained on another LLM.
        """
        if not self.config.reads_prompts:
            raise CheckpointError(
                f"{self.name or 'the scorer'}: its modules were attached to a vision tower alone and read no "
                "prompts; score images without prompts, or attach them to a model with an LLM"
            )
        if self._prompt_table is None:
            table = load_prompt_table(checkpoint.resolve(self._location), hub=self._hub)
            binding.check_prompt_table(self.config, table, self._location)
            self._prompt_table = replace(table, weight=table.weight.to(self.tower.device))
        return self._prompt_table

    def _fold(self) -> FoldedScorer:
        """The folded modules; built again after a weight that was folded was moved or changed."""
        state = tuple(
            x
            for weight in folded_weights(self.safety)  # not all: looking at each costs as much as the head
            for x in (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        )
        held = self._folded  # another thread may replace it meanwhile
        if held is None or held[0] != state:
            folded = fold(self.safety)
            if self._compile_options is not None:
                folded.hidden = torch.compile(folded.hidden, **self._compile_options)  # type: ignore[method-assign]
            self._folded = held = state, folded
        return held[1]
