"""What a scenario brings along: catalog files of the user's, and a model's config.json."""

import hashlib
from pathlib import Path

from capsim.catalog import Catalog, Provenance, load_catalog, with_entries
from capsim.errors import Problem, ScenarioError
from capsim.hugging_face import read_config
from capsim.source import Source

NAMES = {
    "model": "models", "weights": "weight_formats", "kv_format": "kv_formats", "node": "nodes", "engine": "engines",
    "price": "prices",
}  # fmt: skip
FILES = ("catalog", "calibration")
OWN_CALIBRATIONS = ("auto", "none")  # not files


def catalog_of(source: Source) -> tuple[Catalog, list[Problem]]:
    """The catalog that a scenario's names are looked up in, and every name or file that is wrong."""
    try:
        catalog = load_catalog([source.file(path, key) for key in FILES for path in _files(source, key)])
        names = set(NAMES)
        problems = []
    except ScenarioError as error:  # a name that is not found may be one of theirs
        catalog, names, problems = load_catalog(), set(), error.problems
    if is_config(source.values.get("model")):
        try:
            catalog = _with_config(catalog, source)
        except ScenarioError as error:
            names, problems = names - {"model"}, [*problems, *error.problems]
    return catalog, problems + _unknown_names(source, catalog, names)


def is_config(model: object) -> bool:
    """Whether a model is named by its config.json instead of a catalog key."""
    return isinstance(model, str) and model.endswith(".json")


def _files(source: Source, key: str) -> list[str]:
    """What a key lists; anything but paths is left to the schema."""
    given = source.values.get(key)
    paths = [path for path in (given if isinstance(given, list) else [given]) if isinstance(path, str)]
    return [path for path in paths if not (key == "calibration" and path in OWN_CALIBRATIONS)]


def _with_config(catalog: Catalog, source: Source) -> Catalog:
    """The model of a config.json as an entry under its path: such a file has no date, so its content tells it apart."""
    key = source.values["model"]
    path = source.file(Path(key), "model")
    spec = read_config(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    facts = Provenance.undated("vendor", f"{path.name} of {spec.name}, sha256 {digest}")
    return with_entries(catalog, {("models", key): (spec, facts)})


def _unknown_names(source: Source, catalog: Catalog, names: set[str]) -> list[Problem]:
    """Names that the catalog lacks, looked for before the schema is, so that both kinds of mistake come at once."""
    problems = []
    for key, kind in NAMES.items():
        name = source.values.get(key)
        if key in names and isinstance(name, str):
            try:
                catalog.get(kind, name)
            except ScenarioError as error:
                problems.append(source.problem((key,), error.problems[0].message, error.problems[0].hint))
    return problems
