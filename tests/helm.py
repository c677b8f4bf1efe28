"""Renders the few things of Helm's templates that our chart uses; anything else is an error.

``{{ VALUE | FUNCTION ... }}``, ``if VALUE``, ``range VALUE``, ``end``, comments; https://helm.sh/docs/chart_template_guide/
"""

import hashlib
import json
import re
import shlex

import yaml

TAG = re.compile(r"(\s*)\{\{(-)? ?(.*?) ?(-)?\}\}(\s*)", re.S)


def render(text, values, namespace):
    """The objects of a template."""
    tokens = re.split(r"(\{\{.*?\}\})", text, flags=re.S)
    for index, token in enumerate(tokens):
        if token.startswith("{{-"):
            tokens[index - 1] = tokens[index - 1].rstrip()
        if token.endswith("-}}"):
            tokens[index + 1] = tokens[index + 1].lstrip()
    scope = {"Values": values, "Release": {"Namespace": namespace}}
    made, rest = _block(tokens, 0, scope, scope)
    assert rest == len(tokens), "an `end` too many"
    return [one for one in yaml.safe_load_all(made) if one is not None]


def _block(tokens, at, root, dot):
    made = []
    while at < len(tokens):
        token = tokens[at]
        if not token.startswith("{{"):
            made.append(token)
            at += 1
            continue
        words = token.strip("{}").strip("- ").strip()
        if words.startswith("/*"):
            at += 1
        elif words == "end":
            return "".join(made), at
        elif words.startswith(("if ", "range ")):
            kind, _, where = words.partition(" ")
            found = _value(where, root, dot)
            over = found if kind == "range" else [dot]
            for each in over if found else ():
                made.append(_block(tokens, at + 1, root, each)[0])
            at = _block(tokens, at + 1, root, None if kind == "range" else dot)[1] + 1
        else:
            made.append(str(_pipeline(words, root, dot)))
            at += 1
    return "".join(made), at


def _value(word, root, dot):
    if word == ".":
        return dot
    if not word.startswith("."):
        return json.loads(word) if word[0] in "0123456789" else word
    found = root
    for part in word[1:].split("."):
        found = found[part]
    return found


def _pipeline(words, root, dot):
    value = None
    for index, command in enumerate(words.split(" | ")):
        name, *arguments = shlex.split(command)
        given = [_value(one, root, dot) for one in arguments]
        value = _value(name, root, dot) if name[0] == "." else FUNCTIONS[name](*given, *[value][: index or 0])
    return value


FUNCTIONS = {
    "quote": lambda value: json.dumps(str(value), ensure_ascii=False),
    "int64": int,
    "toString": str,
    "toJson": json.dumps,
    "toYaml": lambda value: yaml.safe_dump(value).rstrip("\n"),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "trunc": lambda count, text: text[:count],
    "printf": lambda form, *values: form % values,
}
