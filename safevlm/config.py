"""SafetyConfig: the configuration that a checkpoint stores, a frozen dataclass with a versioned JSON form."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, TypeGuard, TypeVar

from safevlm.errors import brief
from safevlm.taxonomy import Taxonomy, check_fields, check_text

SCHEMA_VERSION = 3
"""3 added `untrained`; 2 `operating_point`, `reading`, and `share` and `prior` of the calibration. All are read."""

DEFAULT_THRESHOLD = 0.5
"""Where there is no operating point; for two levels the argmax of the level head, the paper's rule (arXiv 2405.13581)."""

MAX_POOL = 256
"""The most rows or columns that the projector may pool to, because memory grows with them; LLaVA-1.5 has 24."""

MAX_LAYERS = 10_000
"""Bound of `vision_layer`; the deepest towers have fewer than 100 layers."""

MAX_NAME_LENGTH = 4096
"""Characters of a backbone's name, as many as a path may have on Linux."""


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling of the level logits (Guo et al., arXiv 1706.04599), then a correction for the prior.

    Args:
        temperature: level logits are divided by it; > 0.
        data: the data it was fitted on.
        samples: how many items that was.
        share: of risky items in that data, in (0, 1); None where it is not known (files of schema version 1).
        prior: the share of risky items that the calibrated score assumes, in (0, 1); None: that of the data.

    Raises:
        ValueError: a value outside its range, or a prior without the share that it is corrected from.
    """

    temperature: float
    data: str
    samples: int
    share: float | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        if not is_number(self.temperature) or not self.temperature > 0:
            raise ValueError(
                f"calibration temperature {brief(self.temperature)} is not a finite number above 0; fit it again"
            )
        check_text("calibration: data", self.data)
        _check_whole("calibration: samples", self.samples, least=0)
        for name, value in (("share", self.share), ("prior", self.prior)):
            if value is not None:
                _check_share(f"calibration: {name}", value)
        if self.prior is not None and self.share is None:
            raise ValueError(
                "calibration: a prior is given without the share of risky items in the data; fit it again"
            )

    @property
    def log_odds_shift(self) -> float:
        """Added to the log odds of risky against safe: logit(prior) - logit(share); 0 without a prior."""
        if self.prior is None or self.share is None:
            return 0.0
        return _log_odds(self.prior) - _log_odds(self.share)


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold that the default policy uses, chosen for a rate of false alarms.

    Args:
        threshold: the least score that is unsafe, in (0, 1].
        false_positive_rate: the share of safe items that the threshold was chosen to flag at most, in (0, 1).
        data: the data it was chosen on.
        samples: how many safe items that was.

    Raises:
        ValueError: a value outside its range.
    """

    threshold: float
    false_positive_rate: float
    data: str
    samples: int

    def __post_init__(self) -> None:
        _check_threshold("operating_point: threshold", self.threshold)
        _check_share("operating_point: false_positive_rate", self.false_positive_rate)
        check_text("operating_point: data", self.data)
        _check_whole("operating_point: samples", self.samples, least=1)

    @property
    def text(self) -> str:
        """In words: threshold, rate, number of items and data."""
        return (
            f"score >= {self.threshold:.3g}, chosen for at most {100 * self.false_positive_rate:.3g} % false positives "
            f"on {self.samples} safe items of {self.data}"
        )


@dataclass(frozen=True)
class Reading:
    """When an image is worth reading (OCR): where P(category) of the image alone reaches the threshold.

    Args:
        category: of the taxonomy, one whose images hold writing.
        threshold: the least P(category) that is read, in (0, 1].
        data: the data it was chosen on.
        samples: how many items of the category that was.

    Raises:
        ValueError: a value outside its range.
    """

    category: str
    threshold: float
    data: str
    samples: int

    def __post_init__(self) -> None:
        check_text("reading: category", self.category)
        _check_threshold("reading: threshold", self.threshold)
        check_text("reading: data", self.data)
        _check_whole("reading: samples", self.samples, least=1)

    @property
    def text(self) -> str:
        """In words: category, threshold, number of items and data."""
        return f"P({self.category}) >= {self.threshold:.3g}, chosen on {self.samples} items of {self.data}"


Record = TypeVar("Record", Calibration, OperatingPoint, Reading)


@dataclass(frozen=True)
class SafetyConfig:
    """Sizes of the safety modules and the backbone they belong to.

    Args:
        taxonomy: levels and categories that the head tells apart.
        vision_dim: width of the vision features; set by `attach`.
        text_dim: width of the projector's output, tokens and head: that of the LLM's input embeddings,
            set by `SafeVLM.attach`. With a vision tower alone it may have any value; 0 means `vision_dim`.
        hidden_dim: width of the projector's convolutions; 1024 in the paper (arXiv 2405.13581; the
            authors' code has 1088).
        depth: blocks per RegStage; 3 in the paper.
        num_tokens: safety tokens per set; 64 in the paper.
        num_heads: heads of the cross-attention; 8 in the paper.
        pool_grid: (h, w) that the projector pools to; None keeps the image's own grid.
        vision_layer: index of the hidden state that is read, None for the tower's output; set by `attach`. With a
            vision tower alone it may have any value; "auto" means the default of the tower's family.
        backbone: hub id, folder or embedded name of the backbone; empty when unknown.
        backbone_type: `config.model_type` of the backbone.
        tower_fingerprint: fingerprint of the vision tower's weights; empty if not attached to a tower.
        prompt_fingerprint: fingerprint of the LLM's input embeddings; empty for modules that read no prompts.
        calibration: of the scores; None if they are not calibrated.
        operating_point: of the default policy; None if training chose none.
        reading: which images are worth reading (OCR); None if training chose no threshold for it.
        has_lora: whether a `lora/` folder belongs to the checkpoint.
        untrained: whether the modules are as `attach` made them, so that their scores mean nothing.
        schema_version: version of the JSON form.

    Raises:
        ValueError: the reading's category is not one of the taxonomy.
    """

    taxonomy: Taxonomy
    vision_dim: int = 0
    text_dim: int = 0
    hidden_dim: int = 1024
    depth: int = 3
    num_tokens: int = 64
    num_heads: int = 8
    pool_grid: tuple[int, int] | None = None
    vision_layer: int | Literal["auto"] | None = "auto"
    backbone: str = ""
    backbone_type: str = ""
    tower_fingerprint: tuple[float, ...] = ()
    prompt_fingerprint: tuple[float, ...] = ()
    calibration: Calibration | None = None
    operating_point: OperatingPoint | None = None
    reading: Reading | None = None
    has_lora: bool = False
    untrained: bool = False
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        known = self.taxonomy.category_names
        if self.reading is not None and self.reading.category not in known:
            raise ValueError(
                f"reading: category {brief(self.reading.category)} is not in taxonomy "
                f"{self.taxonomy.name!r}; it has {list(known)}"
            )

    @property
    def threshold(self) -> float:
        """The least score that the default policy calls unsafe: the operating point's, or 0.5 without one."""
        return DEFAULT_THRESHOLD if self.operating_point is None else self.operating_point.threshold

    @property
    def reads_prompts(self) -> bool:
        """Whether the modules were attached to a model with an LLM, whose embeddings their head reads."""
        return bool(self.prompt_fingerprint)

    def to_json(self) -> str:
        """The file's text, in the oldest schema version that holds the values; the inverse of `from_json`.

        A checkpoint of an older version keeps its text, which the hashes of its scans are made from.
        """
        values = {**asdict(self), "taxonomy": self.taxonomy.to_dict()}
        if self.untrained:
            return json.dumps(values, indent=2) + "\n"
        del values["untrained"]
        values["schema_version"] = 2
        newer = [(values, "operating_point"), (values, "reading")]
        if self.calibration is not None:
            newer += [(values["calibration"], "share"), (values["calibration"], "prior")]
        if all(part[name] is None for part, name in newer):
            for part, name in newer:
                del part[name]
            values["schema_version"] = 1
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> SafetyConfig:
        """Read a config. Raises ValueError, with the offending key and the remedy, if it is not valid."""
        values = read_json(text)
        if not isinstance(values, Mapping):
            raise ValueError("the config is not a JSON object; save it with `save_pretrained`")
        version = values.get("schema_version")
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(
                f"schema_version is {brief(version)}, this safevlm reads 1 to {SCHEMA_VERSION}; "
                "run: pip install -U safevlm"
            )
        newer: dict[str, Any] = {} if version > 2 else {"untrained": False}
        if version == 1:
            newer |= {"operating_point": None, "reading": None}
        return cls._from_dict({**newer, **values, "schema_version": SCHEMA_VERSION})

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> SafetyConfig:
        check_fields("the config", values, {field.name for field in fields(cls)}, set())
        for name in ("vision_dim", "text_dim", "hidden_dim", "depth", "num_tokens", "num_heads"):
            _check_whole(name, values[name], least=1)
        layer = values["vision_layer"]
        if layer not in (None, "auto"):
            _check_whole("vision_layer", layer, least=-MAX_LAYERS, most=MAX_LAYERS)
        for name in ("backbone", "backbone_type"):
            if len(check_text(name, values[name])) > MAX_NAME_LENGTH or "\0" in values[name]:
                raise ValueError(f"{name} is {brief(values[name])}, which is no name, folder or hub id")
        for name in ("has_lora", "untrained"):
            if type(values[name]) is not bool:
                raise ValueError(f"{name} is {brief(values[name])}, true or false is needed")
        values["taxonomy"] = Taxonomy.from_dict(values["taxonomy"])
        for name in ("tower_fingerprint", "prompt_fingerprint"):
            values[name] = _fingerprint(name, values[name])
        if values["pool_grid"] is not None:
            values["pool_grid"] = _grid(values["pool_grid"])
        values["calibration"] = _record("calibration", values["calibration"], Calibration)
        values["operating_point"] = _record("operating_point", values["operating_point"], OperatingPoint)
        values["reading"] = _record("reading", values["reading"], Reading)
        return cls(**values)

    def with_changes(self, **changes: Any) -> SafetyConfig:
        """A copy with some fields changed."""
        return replace(self, **changes)


def read_json(text: str | bytes) -> Any:
    """Plain values from JSON, strictly.

    Raises:
        ValueError: if the text is not JSON or not UTF-8, is nested too deeply, has a key twice in an object, or
            has NaN or infinity, which are not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {brief(twice)} is given twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite float, or an int within a float's range; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _check_whole(name: str, value: object, *, least: int, most: int | None = None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} is {brief(value)}, a whole number of at least {least}{upper} is needed")


def _check_threshold(name: str, value: object) -> None:
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"{name} is {brief(value)}, a number in (0, 1] is needed")


def _check_share(name: str, value: object) -> None:
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} is {brief(value)}, a number between 0 and 1 is needed")


def _log_odds(share: float) -> float:
    return math.log(share) - math.log1p(-share)


def _fingerprint(name: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(is_number(value) for value in values):
        raise ValueError(f"{name} is {brief(values)}, a list of numbers is needed")
    return tuple(float(value) for value in values)


def _grid(values: object) -> tuple[int, int]:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ValueError(f"pool_grid is {brief(values)}, null or [height, width] is needed")
    for value in values:
        _check_whole("pool_grid", value, least=1, most=MAX_POOL)
    return values[0], values[1]


def _record(name: str, values: object, kind: type[Record]) -> Record | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {brief(values)}, null or an object is needed")
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    check_fields(name, values, needed, {field.name for field in fields(kind)} - needed)
    return kind(**values)
