"""The recorded study as a dataset of the Hugging Face hub, and its recorded models as folders for transformers.

data/NAME.parquet          one table of one part, all profiles and base seeds together; `claims`: with their verdicts
records/STUDY/PLACE.json   the manifests; records/NAME.json: other records of the study
README.md                  the card: how to load it, and the data dictionary of `results/README.md`
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from rlheals.chapters import verdicts
from rlheals.chapters.registry import CHAPTERS
from rlheals.chapters.studies import MORE
from rlheals.display.markup import Table, spans, to_markdown
from rlheals.errors import BadInput
from rlheals.project import project_root
from rlheals.publish.licence import OURS
from rlheals.store.files import atomic_write, first_line, make_folder, read_json, refuse_used, whole
from rlheals.store.runs import MANIFEST, digest_of
from rlheals.study import record
from rlheals.study.record import Recorded, RecordedRun
from rlheals.study.tables import Part

CARD, DATA, RECORDS, INDEX = "README.md", "data", "records", "checkpoints.json"
CLAIMS = "claims"
TEXT, NUMBER = pa.string(), pa.float64()
CLAIM: dict[str, pa.DataType] = {
    **dict.fromkeys(("part", "profile", "id", "sentence", "source", "family", "section", "estimator"), TEXT),
    "options": TEXT, "unit": TEXT, "margin": NUMBER, "power": NUMBER, "partly": pa.bool_(), "verdict": TEXT,
    "estimate": NUMBER, "low": NUMBER, "high": NUMBER, "level": NUMBER, "n": pa.int64(), "method": TEXT,
    "holm_p": NUMBER, "holds_after_holm": pa.bool_(), "seeds": pa.list_(pa.int64()), "values": pa.list_(NUMBER),
    "no_data": TEXT, "missing": TEXT,
}  # fmt: skip
"""Columns of the table of claims."""
OWN = ("profile", "place")
"""Columns that every table gets: the profile's name, and the folder of the base seed in which the row was recorded."""
MAX_INDEX = 10_000_000


@dataclass(frozen=True)
class Place:
    """A recorded folder of a base seed. key: of its part, which the names of its tables begin with."""

    folder: Path
    key: str
    part: Part[Any]
    manifest: Recorded

    def __str__(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def profile(self) -> str:
        return str(self.manifest.profile["name"])

    @property
    def tables(self) -> dict[str, Path]:
        """By the name that it has in the dataset."""
        names = [field.name for field in fields(self.part.kind)]
        return {f"{self.key}-{name}": self.folder / f"{name}.parquet" for name in names}


def publish(results: Path, out: Path, checkpoints: Path | None = None) -> dict[str, Any]:
    """Write the dataset, and with `checkpoints` the recorded models into a folder of their own; rows by table.

    Raises BadInput where a folder is there already, nothing is recorded, or a recorded file is missing, has changed,
    or belongs to no part that is known.
    """
    for folder in (out, checkpoints):
        if folder is not None:
            refuse_used(folder)
    if checkpoints is not None and checkpoints.absolute() == out.absolute():
        raise BadInput("--checkpoints: a folder of its own is needed, not that of --out")
    places = recorded(results)
    models = [(place, model) for place in places for model in sorted(place.folder.glob("*/"))]
    if checkpoints is not None and not models:
        raise BadInput(f"--checkpoints: no study in {results.name!r} was recorded with models")
    with ExitStack() as both:
        folder = both.enter_context(whole(out))
        rows = _write_data(places, results, folder)
        found = None if checkpoints is None else _write_models(models, both.enter_context(whole(checkpoints)))
    return {"tables": rows, "checkpoints": found}


def recorded(results: Path) -> list[Place]:
    """Every recorded folder below `results`, with all of its files as they were recorded."""
    parts = {part.suffix: (key, part) for key, part in MORE.items()}
    parts |= {entry.part.suffix: (key, entry.part) for key, entry in CHAPTERS.items()}
    found = []
    for folder in results.glob("*/seed-*/"):
        manifest = record.read_manifest(folder)
        study, name = folder.parent.name, str(manifest.profile["name"])
        if not study.startswith(name) or study.removeprefix(name) not in parts:
            raise BadInput(f"{study}: is not a known study of profile {name!r:.60}")
        found.append(place := Place(folder, *parts[study.removeprefix(name)], manifest))
        files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        tables = {file.name for file in place.tables.values()}
        for file in sorted({*files, *manifest.files, *tables} - {MANIFEST}):
            if file not in files or digest_of(folder / file).sha256 != manifest.files.get(file):
                raise BadInput(f"{place}: {file} is missing or is not as it was recorded")
            if file.endswith(".parquet") and file not in tables:
                raise BadInput(f"{place}: {file} is not a table of this study")
    if not found:
        raise BadInput(f"--results: nothing is recorded in {results.name!r}")
    return sorted(found, key=lambda one: (one.folder.parent.name, one.manifest.seed, one.folder.name))


def _write_data(places: Sequence[Place], results: Path, folder: Path) -> dict[str, int]:
    make_folder(folder / DATA)
    judged = claims(results)
    pq.write_table(judged, folder / DATA / f"{CLAIMS}.parquet", compression="zstd")
    rows = {CLAIMS: judged.num_rows}
    for name in dict.fromkeys(name for place in places for name in place.tables):
        having = [place for place in places if name in place.tables]
        try:
            rows[name] = _joined(name, having, folder / DATA / f"{name}.parquet")
        except pa.ArrowException as error:
            raise BadInput(f"table {name}: {first_line(error)}") from None
    copies = {f"{place}.json": place.folder / MANIFEST for place in places}
    for name, file in {**copies, **{file.name: file for file in results.glob("*.json")}}.items():
        make_folder((folder / RECORDS / name).parent)
        shutil.copyfile(file, folder / RECORDS / name)
    atomic_write(folder / CARD, _card(places, rows))
    return rows


def _joined(name: str, places: Sequence[Place], out: Path) -> int:
    """One table of all places, one below the other: with the columns of all, in types that hold every value."""
    plain = [_plain(pq.read_schema(place.tables[name])) for place in places]
    schema = pa.unify_schemas(plain, promote_options="permissive")
    if taken := set(OWN) & set(schema.names):
        raise BadInput(f"table {name} has a column {min(taken)!r} of its own")
    empty = pa.schema([*((own, pa.string()) for own in OWN), *schema]).empty_table()
    rows = 0
    with pq.ParquetWriter(out, empty.schema, compression="zstd") as writer:
        for place, kinds in zip(places, plain, strict=True):
            part = pq.read_table(place.tables[name]).cast(kinds)
            if set(pc.unique(part["seed"]).to_pylist()) - {place.manifest.seed}:
                raise BadInput(f"{place}: {name} holds other base seeds")
            for own, value in zip(OWN, (place.profile, place.folder.name), strict=True):
                part = part.append_column(own, pa.repeat(value, part.num_rows))
            if part.num_rows:  # `datasets` reads neither a group of rows nor a table that is empty
                writer.write_table(pa.concat_tables([empty, part], promote_options="permissive"))
            rows += part.num_rows
    if not rows:
        out.unlink()
    return rows


def _plain(schema: pa.Schema) -> pa.Schema:
    """Text as text: neither dictionaries, which `datasets` does not read, nor two kinds of strings."""
    kinds = {field.name: getattr(field.type, "value_type", field.type) for field in schema}
    texts = {name for name, kind in kinds.items() if pa.types.is_large_string(kind)}
    return pa.schema({name: pa.string() if name in texts else kind for name, kind in kinds.items()})


def claims(results: Path) -> pa.Table:
    """Every claim with what the recorded study says of it; without a verdict where something is missing.

    values: one number per base seed of `seeds`, what the claim is about; of a ratio, what stands for it.
    """
    rows = []
    for part, found in verdicts.as_json(results).items():
        about = {"part": part, "profile": found["study"]["profile"], "missing": "; ".join(found["missing"])}
        for claim in found["claims"]:
            values = claim["values"] or {}
            said = {"options": json.dumps(claim["options"]), "seeds": [*values], "values": [*values.values()]}
            rows.append({**claim, **(claim["interval"] or {}), **about, **said})
    return pa.Table.from_pylist(rows, schema=pa.schema(CLAIM))


def _card(places: Sequence[Place], rows: dict[str, int]) -> str:
    """The dataset's card. The dictionary of `results/` is taken over as it is."""
    listed = [(f"`{CLAIMS}`", "", f"{rows[CLAIMS]:,}", "")]
    for name in [*rows][1:]:
        having = [place for place in places if name in place.tables]
        seeds = dict[str, set[int]]()
        for place in having:
            seeds.setdefault(place.profile, set()).add(place.manifest.seed)
        said = "; ".join(f"{profile} {spans(sorted(of))}" for profile, of in seeds.items())
        key, part = having[0].key, having[0].part
        section = f"`lab{part.suffix}`, `{name.removeprefix(f'{key}-')}`"
        listed.append((f"`{name}`", section, f"{rows[name]:,}", said))
    head = ("config", "section and table of the dictionary", "rows", "profiles and base seeds")
    configs = [
        {"config_name": name, "data_files": f"{DATA}/{name}.parquet"} for name, count in rows.items() if count
    ]
    card = DatasetCard.from_template(
        DatasetCardData(license=OURS, pretty_name="RL heals OOD forgetting in SFT", configs=configs),
        template_path=str(Path(__file__).with_name("dataset_card.md")),
        tables=to_markdown([Table(head, tuple(listed))]),
        dictionary=(project_root() / record.FOLDER / CARD).read_text(encoding="utf-8"),
    )
    return f"{card}\n"


def _write_models(models: Sequence[tuple[Place, Path]], folder: Path) -> list[dict[str, Any]]:
    index = []
    for place, model in models:
        run, step = _made_by(place, model), _step(place, model)
        stage = run.stage
        name = f"{place.profile}/seed-{place.manifest.seed}/{stage}-{step:05d}"
        shutil.copytree(model, folder / name)
        about = {"profile": place.profile, "seed": place.manifest.seed, "stage": stage, "step": step}
        index.append({**about, "folder": name, "run": run.id})
    atomic_write(folder / INDEX, json.dumps({"models": index}, indent=1) + "\n")
    card = ModelCard.from_template(
        ModelCardData(license=OURS, library_name="transformers"),
        template_path=str(Path(__file__).with_name("checkpoints_card.md")),
        example=index[0],
        count=len(index),
        stages=sorted({one["stage"] for one in index}),
    )
    atomic_write(folder / CARD, f"{card}\n")
    return index


def _made_by(place: Place, model: Path) -> RecordedRun:
    """The run that made it: a checkpoint is of SFT, what has no step in its name of the last run."""
    runs = place.manifest.runs
    return next(run for run in runs if run.stage == "sft") if re.search(r"-\d+$", model.name) else runs[-1]


def _step(place: Place, model: Path) -> int:
    """By the name of the folder, else the last step of the tables beside it."""
    if at := re.search(r"-(\d+)$", model.name):
        return int(at[1])
    table = place.folder / f"{place.part.kind.LISTS}.parquet"
    return int(pc.max(pq.read_table(table, columns=["step"])["step"]).as_py())


def checkpoint(
    folder: Path, seed: int, stage: str | None = None, step: int | None = None, profile: str | None = None
) -> Path:
    """The model of a folder of checkpoints with this base seed, stage and step, for `from_pretrained`.

    Arguments that are not given match anything; BadInput unless exactly one model is left.
    """
    asked = {"seed": seed, "stage": stage, "step": step, "profile": profile}
    wanted = {name: value for name, value in asked.items() if value is not None}
    models = read_json(folder / INDEX, MAX_INDEX).get("models", [])
    found = [folder / one["folder"] for one in models if all(one.get(k) == v for k, v in wanted.items())]
    if len(found) != 1 or not found[0].resolve().is_relative_to(folder.resolve()):
        said = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise BadInput(f"{folder.name}: has {len(found)} models with {said:.200}; accepted: what names one")
    return found[0]
