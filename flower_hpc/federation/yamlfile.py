"""Read YAML as plain data: duplicate keys are refused, mistakes are one line with their place."""

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError


class _Plain:
    """A resolver's pattern, without numbers to the base of 60."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def match(self, text: str) -> re.Match[str] | None:
        return None if _BASE_60.fullmatch(text) else self._pattern.match(text)


class _Loader(yaml.SafeLoader):
    """YAML takes the last of two equal keys silently; a typed-twice site must not vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {name!r}", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 4:00:00 for a number to the base of 60, and a time limit would be 14400 minutes
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _Plain(pattern) if tag.endswith((":int", ":float")) else pattern) for tag, pattern in rules]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises
    ------
    ConfigError
        No such file, not text, or not YAML; the latter with line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(f"{path}: {place}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
