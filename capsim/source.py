"""What users write: YAML with the line of every key, overrides, and mistakes that say where they are."""

import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from capsim.errors import Problem, ScenarioError, did_you_mean

MAX_BYTES = 4_000_000
MAX_DEPTH = 50
MAX_PROBLEMS = 50
Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass
class Source:
    """A file's values, the line of every key, which dotted paths were set from outside, and whether it may name files
    beside it."""

    path: Path
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    own_files: bool = True

    def line(self, location: Location) -> int | None:
        """The line of the innermost part of ``location`` that the file has, None if it was set from outside."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return None

    def problem(self, location: Location, message: str, hint: str = "") -> Problem:
        key = ".".join(map(str, location))
        given = next((text for path, text in self.overrides.items() if key == path or key.startswith(path + ".")), None)
        if given is not None:
            return Problem(message, f"--set {given}", None, key, hint)
        return Problem(message, self.path, self.line(location), key, hint)

    def file(self, path: Path | str, place: str) -> Path:
        """Paths in a file are relative to it, paths of an override to where the user stands.

        Raises
        ------
        ScenarioError
            It may name no files.
        """
        if not self.own_files:
            message = "names a file, which an uploaded scenario cannot bring along"
            hint = "give it to the command line, or write the values out"
            raise ScenarioError([self.problem(tuple(place.split(".")), message, hint)])
        given = any(place == key or place.startswith(key + ".") for key in self.overrides)
        return Path(path) if given else self.path.parent / path


def load(path: Path) -> Source:
    """Read a YAML mapping.

    Raises
    ------
    ScenarioError
        No such file, too large, not YAML, a key given twice, an alias, or not a mapping.
    """
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    if path.stat().st_size > MAX_BYTES:
        raise ScenarioError.one(f"larger than {MAX_BYTES:,} bytes: not such a file", path=path)
    source = Source(path, {})
    problems: list[Problem] = []
    try:
        text = path.read_text(encoding="utf-8")
        _check_form(text, path)
        loader = yaml.CSafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _note_lines(node, (), source, problems)
            source.values = loader.construct_document(node)
    except UnicodeDecodeError as error:
        raise ScenarioError.one(f"not a text file: {error.reason}", path=path) from error
    except (yaml.YAMLError, ValueError) as error:
        line = _line(getattr(error, "problem_mark", None))
        message = f"not valid YAML: {getattr(error, 'problem', None) or error}"
        raise ScenarioError.one(message, path=path, line=line) from error
    if not isinstance(source.values, dict) or node is None:
        raise ScenarioError.one("expected keys and values, such as 'model: llama-3.1-70b'", path=path, line=1)
    if problems:
        raise ScenarioError(_first(problems, len(problems), path))
    return source


def _check_form(text: str, path: Path) -> None:
    """Refuse what the loader would take and no such file needs: aliases, and depths it might not come back from."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise ScenarioError.one(f"aliases (*{event.anchor}) are not supported: write it out", path=path, line=line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ScenarioError.one(f"nested more than {MAX_DEPTH} deep: not such a file", path=path, line=line)


def _first(problems: list[Problem], count: int, path: Path) -> list[Problem]:
    """As many as a reader takes in, and how many of ``count`` are left out."""
    more = count - MAX_PROBLEMS
    return problems[:MAX_PROBLEMS] + ([Problem(f"and {more:,} more mistakes", path)] if more > 0 else [])


def _line(mark: Any) -> int | None:
    return None if mark is None else int(mark.line) + 1


def _note_lines(node: yaml.Node, location: Location, source: Source, problems: list[Problem]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            here = (*location, key_node.value)
            line = key_node.start_mark.line + 1
            if here in source.lines:
                first = source.lines[here]
                problems.append(
                    Problem(f"given twice (first in line {first})", source.path, line, ".".join(map(str, here)))
                )
            source.lines[here] = line
            _note_lines(value_node, here, source, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value_node in enumerate(node.value):
            source.lines[(*location, index)] = value_node.start_mark.line + 1
            _note_lines(value_node, (*location, index), source, problems)


def override(source: Source, assignment: str) -> None:
    """Apply ``path.to.key=value``; the value is read as YAML.

    Raises
    ------
    ScenarioError
        Not of that form.
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ScenarioError.one(f"expected path=value, such as slo.ttft_s=0.5, got '{assignment}'", path="--set")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError.one(f"value is not valid YAML: '{text}'", path=f"--set {assignment}") from error
    place: Any = source.values
    for key in keys[:-1]:
        if not isinstance(place.get(key), dict):
            place[key] = {}
        place = place[key]
    place[keys[-1]] = value
    source.overrides.pop(".".join(keys), None)
    source.overrides[".".join(keys)] = assignment  # last, so that they can be applied again in order


def assignment(path: str, value: Any) -> str:
    """The ``path=value`` that ``override`` reads this value from."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return f"{path}=" + text.removesuffix("...\n").strip()


def unknown_key(spec: type[BaseModel], path: str) -> Problem | None:
    """What is wrong with a dotted path that no file of this schema can have."""
    keys = tuple(path.split("."))
    for length, key in enumerate(keys):
        known = _keys_at(spec, keys[:length])
        if key not in known:
            return Problem(f"unknown key '{path}'", key=path, hint=did_you_mean(key, known))
    return None


def text_of(source: Source) -> str:
    """Its values as YAML, overrides among them."""
    return yaml.safe_dump(source.values, sort_keys=False, allow_unicode=True)


def validate(spec: type[M], values: Any, source: Source, at: Location = ()) -> M:
    """Check ``values`` against a schema; every mistake is reported, with its file and line."""
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        found = [_problem(spec, source, at, details) for details in error.errors()[:MAX_PROBLEMS]]
        raise ScenarioError(_first(found, error.error_count(), source.path)) from error


def _problem(spec: type[BaseModel], source: Source, at: Location, details: Any) -> Problem:
    raw: Location = details["loc"]
    kind, context, given = details["type"], details.get("ctx", {}), details.get("input")
    location = at + _without_tags(spec, raw)
    if kind == "extra_forbidden":
        return source.problem(location, "unknown key", _nearest_key(spec, raw))
    if kind == "missing":
        return source.problem(location, "is required")
    if kind == "union_tag_invalid":
        known = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
        location = (*location, str(context["discriminator"]).strip("'"))
        return source.problem(location, f"unknown kind '{context['tag']}'", did_you_mean(str(context["tag"]), known))
    if kind == "union_tag_not_found":
        tags = (tag for m in _walk(spec, raw)[0] for tag in typing.get_args(m.model_fields["kind"].annotation))
        return source.problem(location, "needs a 'kind'", f"known: {', '.join(sorted(tags))}")
    if kind == "model_type":
        return source.problem(location, "expected keys and values" + _given(given, ""))
    if kind == "literal_error" and isinstance(given, str):
        known = [tag.strip("' ") for tag in str(context["expected"]).replace(" or ", ",").split(",")]
        return source.problem(location, f"unknown value '{given}'", did_you_mean(given, known))
    comparison = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge"), "less_than_equal": ("<=", "le")}
    if kind in comparison:
        sign, bound = comparison[kind]
        return source.problem(location, f"must be {sign} {context[bound]:g} (got {given})")
    message = details["msg"].removeprefix("Value error, ")
    return source.problem(location, message[0].lower() + message[1:] + _given(given, message))


def _given(given: Any, message: str) -> str:
    return f" (got {given!r})" if isinstance(given, (str, int, float, bool)) and "got" not in message else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every schema class that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_args(annotation):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _walk(spec: type[BaseModel], location: Location) -> tuple[list[type[BaseModel]], Location]:
    """The schemas that hold at ``location``, and the location without the union tags that pydantic puts into it."""
    models, kept = [spec], []
    for part in location:
        tagged = [
            m for m in models if "kind" in m.model_fields and part in typing.get_args(m.model_fields["kind"].annotation)
        ]
        if tagged:
            models = tagged
            continue
        kept.append(part)
        if not isinstance(part, int):
            models = [
                inner for m in models if part in m.model_fields for inner in _models_in(m.model_fields[part].annotation)
            ]
    return models, tuple(kept)


def _without_tags(spec: type[BaseModel], location: Location) -> Location:
    return _walk(spec, location)[1]


def _nearest_key(spec: type[BaseModel], location: Location) -> str:
    """A hint for an unknown key: the part of its place that has such a key, else the key that is spelled alike."""
    *place, word = location
    for model in _walk(spec, tuple(place))[0]:
        for name, part in model.model_fields.items():
            if any(word in inner.model_fields for inner in _models_in(part.annotation)):
                return f"did you mean '{name}.{word}'?"
    return did_you_mean(str(word), _keys_at(spec, tuple(place)))


def _keys_at(spec: type[BaseModel], location: Location) -> list[str]:
    return sorted({name for model in _walk(spec, location)[0] for name in model.model_fields})
