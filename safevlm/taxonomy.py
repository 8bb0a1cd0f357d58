"""Levels and categories of risk. Presets are YAML files in `safevlm/presets`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from safevlm.errors import brief
from safevlm.files import write_bytes

MAX_YAML_BYTES = 1 << 20
"""The largest policy or taxonomy file that is read, 1 MiB; the presets have 2 kB."""

MAX_DEPTH = 20
"""Lists and mappings within each other that are read."""

MAX_NAME = 200
"""Characters of a level's or category's name, which stands in columns, terminals and pages."""


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, nested at most `MAX_DEPTH` deep; a key given twice is an error, where YAML takes the last."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep; a policy or taxonomy has four levels"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.most_common(1):
            if count > 1:
                problem = f"the key {brief(key)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read the plain values of a YAML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger than `MAX_YAML_BYTES`, not UTF-8, not YAML, nested too deeply, or gives a
            key twice; the message names the file.
    """
    with Path(path).open("rb") as file:
        data = file.read(MAX_YAML_BYTES + 1)
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(
            f"{path} has more than {MAX_YAML_BYTES:,} bytes, the limit; is it a policy or taxonomy?"
        )
    try:
        return yaml.load(data.decode("utf-8"), _StrictLoader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # UnicodeDecodeError and numbers too long are ValueErrors
        raise ValueError(f"{path} is not YAML that can be read: {' '.join(str(error).split())}") from error


def check_fields(what: str, values: Mapping[Any, Any], needed: set[str], optional: set[str]) -> None:
    """Raise ValueError unless a mapping has the needed fields, and no others than those and the optional ones."""
    missing = sorted(needed - set(values))
    foreign = sorted(brief(key) for key in set(values) - needed - optional)
    wrong = [f"missing fields {missing}"] if missing else []
    wrong += [f"foreign fields [{', '.join(foreign[:8])}]"] if foreign else []
    if wrong:
        raise ValueError(f"{what} has {' and '.join(wrong)}; its fields are {sorted(needed | optional)}")


def check_text(what: str, value: object) -> str:
    """The value if it is text; raises ValueError that says how to write it otherwise."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is {brief(value)}, not text; write it in quotes")
    return value


def check_name(what: str, value: object) -> str:
    """The value if it is a printable name of 1 to `MAX_NAME` characters; raises ValueError otherwise."""
    name = check_text(what, value)
    if not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(f"{what} is {brief(name)}; a name has 1 to {MAX_NAME} printable characters")
    return name


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
        check_name("a taxonomy's name", self.name)
        check_text(f"taxonomy {self.name!r}: source", self.source)
        for what, names in (("levels", self.levels), ("categories", self.category_names)):
            for name in names:
                check_name(f"taxonomy {self.name!r}: a name in {what}", name)
            if len(names) < 2 or len(set(names)) != len(names):
                raise ValueError(
                    f"taxonomy {self.name!r} has {what} {brief(list(names))}; it needs at least two, each name once"
                )
        if self.clean not in self.category_names:
            raise ValueError(
                f"taxonomy {self.name!r}: the clean category {brief(self.clean)} is not among "
                f"{brief(list(self.category_names))}; set `clean` to one of them"
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
                f"a taxonomy is a mapping with name, levels, categories, clean; got {brief(values)}"
            )
        name = brief(values.get("name"))
        check_fields(f"taxonomy {name}", values, {"name", "levels", "categories", "clean"}, {"source"})
        for field in ("levels", "categories"):
            if not isinstance(values[field], list | tuple):
                raise ValueError(f"taxonomy {name}: {field} is {brief(values[field])}, not a list")
        return cls(
            check_name("a taxonomy's name", values["name"]),
            tuple(values["levels"]),
            tuple(_category(name, category) for category in values["categories"]),
            values["clean"],
            values.get("source", ""),
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
        write_bytes(Path(path), yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True).encode())


def _category(taxonomy: str, values: Any) -> Category:
    """A category from plain values; raises ValueError where it is no mapping of texts."""
    if not isinstance(values, Mapping):
        raise ValueError(
            f"taxonomy {taxonomy}: each category is a mapping with name, concern, guidance; got {brief(values)}"
        )
    what = f"taxonomy {taxonomy}: category {brief(values.get('name'))}"
    check_fields(what, values, {"name"}, {"concern", "guidance"})
    texts = {field: check_text(f"{what}: {field}", text) for field, text in values.items() if field != "name"}
    return Category(check_name(f"taxonomy {taxonomy}: a category's name", values["name"]), **texts)
