"""Levels and categories of risk. Presets are YAML files in `safevlm/presets`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: str | Path) -> Any:
    """The plain values of a YAML file; raises ValueError that names the file where it is none."""
    try:
        return yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Category:
    """One kind of risk.

    Args:
        name: the identifier in scores and files.
        concern: what an image of this kind involves, to complete "this involves ...".
        guidance: what a careful answer does, an imperative without a full stop.
    """

    name: str
    concern: str = ""
    guidance: str = ""


@dataclass(frozen=True)
class Taxonomy:
    """What a safety head tells apart.

    Args:
        name: the preset's name or any other.
        levels: names of the levels, the safe one first, then rising.
        categories: kinds of risk; exactly one is the clean one.
        clean: name of the category of harmless images.
        source: where the taxonomy comes from.

    Raises:
        ValueError: fewer than two levels or categories, a name twice, or `clean` not among them.
    """

    name: str
    levels: tuple[str, ...]
    categories: tuple[Category, ...]
    clean: str
    source: str = ""

    def __post_init__(self) -> None:
        for what, names in (("levels", self.levels), ("categories", self.category_names)):
            if len(names) < 2 or len(set(names)) != len(names):
                raise ValueError(
                    f"taxonomy {self.name!r} has {what} {list(names)}; it needs at least two, each name once"
                )
        if self.clean not in self.category_names:
            raise ValueError(
                f"taxonomy {self.name!r}: the clean category {self.clean!r} is not among "
                f"{list(self.category_names)}; set `clean` to one of them"
            )

    @property
    def safe_level(self) -> str:
        """The first level: nothing to worry about."""
        return self.levels[0]

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of the head's outputs."""
        return tuple(category.name for category in self.categories)

    @property
    def risky_levels(self) -> tuple[str, ...]:
        """Every level but the safe one."""
        return self.levels[1:]

    @property
    def risky_categories(self) -> tuple[str, ...]:
        """Every category but the clean one."""
        return tuple(name for name in self.category_names if name != self.clean)

    def category(self, name: str) -> Category:
        """The category called `name`; raises KeyError with the names there are."""
        for category in self.categories:
            if category.name == name:
                return category
        raise KeyError(f"no category {name!r} in taxonomy {self.name!r}; it has {list(self.category_names)}")

    @classmethod
    def preset(cls, name: str) -> Taxonomy:
        """The preset called `name`; raises ValueError with the presets there are."""
        if name not in cls.presets():
            raise ValueError(
                f"no taxonomy preset {name!r}; there are {', '.join(cls.presets())}, "
                "or give the path of a YAML file to Taxonomy.from_yaml"
            )
        return cls.from_dict(yaml.safe_load((files("safevlm.presets") / f"{name}.yaml").read_text("utf-8")))

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Names of the presets."""
        found = (entry.name for entry in files("safevlm.presets").iterdir())
        return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Taxonomy:
        """A taxonomy of your own, in the presets' form."""
        return cls.from_dict(read_yaml(path))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Taxonomy:
        """The inverse of `to_dict`; raises ValueError where a field is missing, foreign or of a wrong kind."""
        if not isinstance(values, Mapping):
            raise ValueError(
                f"a taxonomy is a mapping with name, levels, categories, clean; got {values!r:.80}"
            )
        known = {"name", "levels", "categories", "clean", "source"}
        missing, foreign = {"name", "levels", "categories", "clean"} - set(values), set(values) - known
        if missing or foreign:
            raise ValueError(
                f"taxonomy {values.get('name')!r}: missing fields {sorted(missing)}, "
                f"foreign fields {sorted(foreign)}; a preset in safevlm/presets shows the form"
            )
        try:
            categories = tuple(Category(**category) for category in values["categories"])
        except TypeError as error:
            raise ValueError(
                f"taxonomy {values['name']!r}: each category is a mapping with name, concern, guidance ({error})"
            ) from error
        return cls(
            str(values["name"]),
            tuple(str(level) for level in values["levels"]),
            categories,
            str(values["clean"]),
            str(values.get("source", "")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, as they stand in YAML and JSON."""
        return {
            **asdict(self),
            "levels": list(self.levels),
            "categories": [asdict(c) for c in self.categories],
        }

    def to_yaml(self, path: str | Path) -> None:
        """Write the taxonomy in the presets' form."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True), "utf-8")
