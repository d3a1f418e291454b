"""The model card of a published folder: what is in it, how well it plays and how surely, how to use it, what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from rlheals.chapters.rl.runs import MAIN
from rlheals.chapters.sft.measures import Solved, first_try, within_five
from rlheals.display.markup import Block, Table, to_markdown
from rlheals.profiles.profile import Profile
from rlheals.publish.folder import CHECKPOINTS, RESULTS, SETTINGS, SPECTRA, Checkpoint, Published
from rlheals.publish.licence import Licence
from rlheals.stats.intervals import t_interval, wilson
from rlheals.tasks import load_task

SETS = {"sft": "seen ID", "rl": "RL-only ID", "held_out": "held-out ID", "ood": "OOD"}
LARGEST_OPTION = 9_999


def card(made: Published, profile: Profile, licence: Licence, folder: Path) -> str:
    """README.md of the folder, whose other files are there already but for the manifest."""
    played = {name: one.rows(folder) for name, one in made.checkpoints.items() if one.censuses}
    blocks: list[Block] = [
        _front(licence),
        f"# rlheals: profile {profile.name}, base seed {made.seed}",
        *_lead(profile, made.seed),
        "## Checkpoints",
        Table(("folder", "what", "run"), tuple(_checkpoint(*one) for one in made.checkpoints.items())),
        "## How well they play",
        *_accuracies(profile, played),
        *_over_rl_seeds(profile, made, played),
        "## Settings",
        Table(("setting", "value"), tuple(_settings(profile, made))),
        f"All of them: `{SETTINGS}`.",
        "## Use",
        *_use(made, folder),
        "## What was not measured",
        "\n".join(f"- {line}" for line in _not_measured(profile, made)),
        "## Where the numbers come from",
        *_origin(made),
        "## Licence",
        licence.words,
    ]
    return to_markdown(blocks)


def _front(licence: Licence) -> str:
    tags = ["rlheals", "sft", "reinforcement-learning", "card-game"]
    front = {"library_name": "transformers", **licence.front, "pipeline_tag": "text-generation", "tags": tags}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _lead(profile: Profile, seed: int) -> list[str]:
    if profile.model is None:
        shape = profile.pretrain.model
        base = (
            f"The base is a Llama-architecture model of {shape.layers} layers and width {shape.hidden}, trained from "
            "scratch on a synthetic corpus about one card game; it knows nothing else."
        )
    else:
        base = f"The base is `{profile.model.name}`."
    return [
        "Checkpoints and results of one base seed of a study with "
        'rlheals, an independent test of the paper "RL Fine-Tuning Heals OOD Forgetting in SFT" '
        "([arXiv 2509.12235](https://arxiv.org/abs/2509.12235)): supervised fine-tuning (SFT) on the card "
        "game GeneralPoints (make 24 from four cards), "
        "and, where it is in the folder, reinforcement learning (RL) from its checkpoints. This is not a release "
        "of the paper's authors.",
        *([f"The profile: {about}"] if (about := " ".join(profile.about.split())) else []),
        base,
        *(["Base seed 0 is for development: settings were chosen on it."] if seed == 0 else []),
    ]


def _checkpoint(name: str, one: Checkpoint) -> tuple[str, str, str]:
    return f"`{CHECKPOINTS}/{name}`", one.about, f"`{one.run[:12]}`"


def _counted(profile: Profile) -> dict[str, tuple[Solved, str]]:
    """What is counted as solved, and in which column. Only lab models know two layouts of an answer."""
    within = f"Within {profile.evaluate.attempts} attempts"
    counted: dict[str, tuple[Solved, str]] = {
        within: (within_five, "solved_at"),
        "First try": (first_try, "solved_at"),
    }
    if profile.model is None:
        counted[f"{within}, in either layout"] = (within_five, "solved_at_either")
    return counted


def _accuracies(profile: Profile, played: dict[str, pd.DataFrame]) -> Iterator[Block]:
    if not played:
        yield "None of these checkpoints was evaluated."
        return
    asked = {
        name: max(rows.loc[rows["split"] == name, "item"].nunique() for rows in played.values())
        for name in SETS
        if any((rows["split"] == name).any() for rows in played.values())
    }
    there = {name: len(load_task(profile.task).items(name)) for name in asked}
    yield "The *ID* rule counts J, Q and K as 10, the *OOD* rule as 11, 12 and 13, on hands that hold one of them."
    by_rl = profile.rl_starts.rl.splits if any(name.startswith("rl-") for name in played) else ()
    rows = [
        (SETS[name], f"{asked[name]:,}", f"{there[name]:,}", _by_sft(profile, name), _yes(name in by_rl))
        for name in asked
    ]
    yield Table(("set", "hands asked", "of all", "SFT trains on it", "RL trains on it"), tuple(rows))
    for title, (solved, column) in _counted(profile).items():
        yield f"**{title}**, share of hands solved:"
        shares = [
            (
                f"`{name}`",
                str(found["decode"].nunique()),
                *(_share(profile, solved(found.loc[found["split"] == split, column])) for split in asked),
            )
            for name, found in played.items()
        ]
        yield Table(("checkpoint", "decodes", *(SETS[name] for name in asked)), tuple(shares))
    yield " ".join(_said(profile, asked == there))


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _by_sft(profile: Profile, split: str) -> str:
    return _yes(split == "sft") if profile.sft.expert_file is None else "not known"


def _share(profile: Profile, hits: pd.Series) -> str:
    if not len(hits):
        return "not asked"
    if profile.evaluate.sampling.temperature == 0:
        return f"{hits.mean():.3f}"
    return f"{wilson(int(hits.sum()), len(hits)):.3f}"


def _said(profile: Profile, census: bool) -> Iterator[str]:
    """What counts, what the brackets mean, and what they leave out."""
    if profile.model is None:
        yield (
            "An answer counts in the layout that SFT teaches; the base prefers another one, which the third table "
            "counts too."
        )
    if census:
        yield "Every hand of a set was asked (a census), so no number here depends on a draw of hands."
    else:
        yield (
            "Not every hand was asked: the first ones of each set, which are no random sample. What the others would "
            "give is not known."
        )
    if (temperature := profile.evaluate.sampling.temperature) == 0:
        yield "Answers are greedy, so for these weights the shares are exact and have no interval."
    else:
        yield (
            f"Answers are sampled at temperature {temperature:g}, one episode per hand and decode. In brackets: 95 % "
            "Wilson score intervals over these episodes, which say how exactly the accuracy of these very weights is "
            "known; as hands differ in how hard they are, rather too wide than too narrow."
        )
    yield (
        "Another training run may give something else: there is one base seed here, and one seed has no interval over "
        "seeds."
    )


def _over_rl_seeds(profile: Profile, made: Published, played: dict[str, pd.DataFrame]) -> Iterator[Block]:
    """Where RL was run with several seeds from one start: the mean over these, with the interval of training by RL."""
    starts: dict[int, list[str]] = {}
    for name in played:
        where = made.checkpoints[name].censuses[0].where
        if where.get("control") == MAIN:
            starts.setdefault(int(where["start"]), []).append(name)
    several = {start: names for start, names in sorted(starts.items()) if len(names) > 1}
    if not several:
        return
    splits = [name for name in SETS if (played[next(iter(starts.values()))[0]]["split"] == name).any()]
    rows = []
    for start, names in several.items():
        for title, (solved, column) in _counted(profile).items():
            cells = []
            for split in splits:
                hits = [solved(played[n].loc[played[n]["split"] == split, column]).mean() for n in names]
                cells.append(f"{t_interval(hits):.3f}")
            rows.append((f"{start:,}", str(len(names)), title.lower(), *cells))
    yield "Over RL seeds from the same SFT checkpoint: mean, and in brackets a 95 % t interval over RL seeds."
    yield Table(
        ("RL from SFT step", "RL seeds", "share of hands solved", *(SETS[s] for s in splits)), tuple(rows)
    )


def _settings(profile: Profile, made: Published) -> Iterator[tuple[str, str]]:
    groups = {"sft": (profile.sft, {"checkpoints"}), "evaluate": (profile.evaluate, {"folder", "rows"})}
    if any(name.startswith("rl-") for name in made.checkpoints):
        groups["rl_starts.rl"] = (
            profile.rl_starts.rl,
            {"folder", "micro_batch_size", "play_rows", "save_every"},
        )
    if profile.model is not None:
        for name, value in profile.model.model_dump(mode="json", exclude_none=True).items():
            yield f"`model.{name}`", str(value)
    for group, (settings, left_out) in groups.items():
        for name, value in settings.model_dump(mode="json", exclude=left_out, exclude_none=True).items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            shown = ", ".join(map(str, shown)) if isinstance(shown, list) else shown
            yield f"`{group}.{name}`", str(shown)


def _use(made: Published, folder: Path) -> Iterator[Block]:
    name, one = next(
        reversed([(n, c) for n, c in made.checkpoints.items() if c.censuses] or made.checkpoints.items())
    )
    yield "Each checkpoint loads alone. `FOLDER` is this folder, or its name on the hub:"
    yield (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("FOLDER", subfolder="{CHECKPOINTS}/{name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("FOLDER", subfolder="{CHECKPOINTS}/{name}")\n```'
    )
    yield (
        "With rlheals and a copy of the folder on disk: is every byte the same; does a checkpoint play its recorded "
        "episodes again, one by one; the same census as a table of your own."
    )
    lines = ["rlheals publish --check FOLDER"]
    if one.censuses:
        census = one.censuses[0]
        lines.append(f"rlheals publish --check FOLDER --again {name}")
        if census.seed <= LARGEST_OPTION:
            lines.append(
                f"rlheals evaluate --folder FOLDER/{CHECKPOINTS}/{name} --profile FOLDER/{SETTINGS} "
                f"--seed {census.seed} --out again"
            )
    yield "```bash\n" + "\n".join(lines) + "\n```"
    yield (
        f"`{RESULTS}/` holds the tables behind these numbers in the form that rlheals records: one row per hand, "
        "decode and checkpoint in `episodes.parquet`."
    )
    if (folder / SPECTRA).is_dir():
        yield (
            f"`{SPECTRA}/` holds, for pairs of checkpoints, singular values, principal angles and the null models "
            "beside them, as `rlheals spectra` writes them."
        )


def _not_measured(profile: Profile, made: Published) -> Iterator[str]:
    yield f"Other base seeds: everything here is of base seed {made.seed}. How much seeds differ is not known from it."
    yield "Anything but this game: other tasks, other languages, safety."
    if missing := [SETS[name] for name in SETS if name not in profile.evaluate.splits]:
        yield f"These sets of hands: {', '.join(missing)}."
    if silent := [f"`{name}`" for name, one in made.checkpoints.items() if not one.censuses]:
        yield f"How well these checkpoints play: {', '.join(silent)}."
    yield from made.absent


def _origin(made: Published) -> Iterator[Block]:
    stages: dict[str, list[str]] = {}
    for run in made.runs:
        stages.setdefault(run.stage, []).append(run.code_hash)
    minutes = sum(run.seconds for run in made.runs) / 60
    yield (
        f"{len(made.runs)} runs, {minutes:.1f} process-minutes. `manifest.json` names them all, and the sha256 of "
        "every file."
    )
    yield Table(
        ("stage", "runs", "code hash"),
        tuple(
            (f"`{name}`", str(len(codes)), ", ".join(f"`{code[:12]}`" for code in sorted(set(codes))))
            for name, codes in stages.items()
        ),
    )
    machines = "; ".join(
        f"{one.kind}, {one.model}, {one.isa}, {one.threads} thread(s)" for one in made.machines
    )
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    yield f"Versions: {versions}. Computed on: {machines}."
