"""The model card of a published folder: what is in it, how well it plays and how surely, how to use it, what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCardData

from rlheals.chapters.rl.runs import MAIN
from rlheals.display.markup import Block, Table, to_markdown
from rlheals.profiles import to_yaml
from rlheals.profiles.profile import Profile
from rlheals.publish.folder import CHECKPOINTS, RESULTS, SETTINGS, SPECTRA, Published
from rlheals.stats.intervals import t_interval, wilson
from rlheals.tasks import load_task

SETS = {"sft": "seen ID", "rl": "RL-only ID", "held_out": "held-out ID", "ood": "OOD"}
LARGEST_OPTION = 9_999


def card(
    made: Published, profile: Profile, licence: tuple[dict[str, str], str], machines: str, folder: Path
) -> str:
    """README.md of the folder, whose other files are there already but for the manifest."""
    front = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["rlheals", "sft", "reinforcement-learning", "card-game"],
        **licence[0],  # type: ignore[arg-type]
    )
    played = {name: one.rows(folder) for name, one in made.checkpoints.items() if one.censuses}
    checkpoints = tuple(
        (f"`{CHECKPOINTS}/{name}`", one.about, f"`{one.run[:12]}`") for name, one in made.checkpoints.items()
    )
    blocks: list[Block] = [
        f"---\n{front.to_yaml()}\n---",
        f"# rlheals: profile {profile.name}, base seed {made.seed}",
        *_lead(profile, made.seed),
        "## Checkpoints",
        Table(("folder", "what", "run"), checkpoints),
        "## How well they play",
        *(_accuracies(profile, played) if played else ["None of these checkpoints was evaluated."]),
        *_over_rl_seeds(profile, made, played),
        "## Settings",
        f"As in `{SETTINGS}`:\n\n```yaml\n{to_yaml(profile)}```",
        "## Use",
        *_use(made, folder),
        "## What was not measured",
        "\n".join(f"- {line}" for line in _not_measured(profile, made)),
        "## Where the numbers come from",
        *_origin(made, machines),
        "## Licence",
        licence[1],
    ]
    return to_markdown(blocks)


def _lead(profile: Profile, seed: int) -> Iterator[str]:
    yield (
        "Checkpoints and results of one base seed of a study with rlheals, an independent test of the paper "
        '"RL Fine-Tuning Heals OOD Forgetting in SFT" ([arXiv 2509.12235](https://arxiv.org/abs/2509.12235)): '
        "supervised fine-tuning (SFT) on the card game GeneralPoints (make 24 from four cards), and, where it is in "
        "the folder, reinforcement learning (RL) from its checkpoints. This is not a release of the paper's authors."
    )
    if about := " ".join(profile.about.split()):
        yield f"The profile: {about}"
    if profile.model is not None:
        yield f"The base is `{profile.model.name}`."
    else:
        shape = profile.pretrain.model
        yield (
            f"The base is a Llama-architecture model of {shape.layers} layers and width {shape.hidden}, trained from "
            "scratch on a synthetic corpus about one card game; it knows nothing else."
        )
    if seed == 0:
        yield "Base seed 0 is for development: settings were chosen on it."


def _measures(profile: Profile) -> dict[str, tuple[str, int]]:
    """What counts as solved: the column of attempts, and the last attempt that counts."""
    attempts = profile.evaluate.attempts
    within = f"success@{attempts} with feedback"
    found = {within: ("solved_at", attempts), "pass@1": ("solved_at", 1)}
    if profile.model is None:  # only lab models know two formats of an answer
        found[f"{within}, format-agnostic"] = ("solved_at_either", attempts)
    return found


def _accuracies(profile: Profile, played: dict[str, pd.DataFrame]) -> Iterator[Block]:
    rows = pd.concat(played, names=["checkpoint"]).reset_index("checkpoint")
    hands = rows.groupby(["split", "checkpoint"])["item"].nunique().groupby("split").max()
    asked = {name: int(hands[name]) for name in SETS if name in hands}
    there = {name: len(load_task(profile.task).items(name)) for name in asked}
    by_rl = profile.rl_starts.rl.splits if any(name.startswith("rl-") for name in played) else ()
    by_sft = {"sft"} if profile.sft.expert_file is None else None
    greedy = profile.evaluate.sampling.temperature == 0
    yield "The *ID* rule counts J, Q and K as 10, the *OOD* rule as 11, 12 and 13, on hands that hold one of them."
    lines = tuple(
        (
            SETS[name],
            f"{asked[name]:,}",
            f"{there[name]:,}",
            "not known" if by_sft is None else ("yes" if name in by_sft else "no"),
            "yes" if name in by_rl else "no",
        )
        for name in asked
    )
    yield Table(("set", "hands asked", "of all", "SFT trains on it", "RL trains on it"), lines)
    for title, (column, last) in _measures(profile).items():
        yield f"**{title}**, share of hands solved:"
        shares = []
        for name, found in played.items():
            cells = [f"`{name}`", str(found["decode"].nunique())]
            for split in asked:
                hits = found.loc[found["split"] == split, column].between(1, last)
                exact = (
                    f"{hits.mean():.3f}" if greedy else f"{wilson(int(hits.sum()), max(1, len(hits))):.3f}"
                )
                cells.append(exact if len(hits) else "not asked")
            shares.append(tuple(cells))
        yield Table(("checkpoint", "sampling seeds", *(SETS[name] for name in asked)), tuple(shares))
    yield " ".join(_said(profile, asked == there))


def _said(profile: Profile, full: bool) -> Iterator[str]:
    """What counts, what the brackets mean, and what they leave out."""
    temperature = profile.evaluate.sampling.temperature
    if profile.model is None:
        yield "An answer counts in the format that SFT teaches; the base prefers another, which format-agnostic counts."
    if full:
        yield "Every hand of a set was asked, so no number here depends on a draw of hands."
    else:
        yield "Not every hand was asked: the first ones of each set, which are no random sample."
    if temperature == 0:
        yield "Answers are greedy, so for these weights the shares are exact and have no interval."
    else:
        yield (
            f"Answers are sampled at temperature {temperature:g}, one episode per hand and sampling seed. In brackets: "
            "95 % Wilson score intervals over these episodes, which say how exactly the accuracy of these very weights "
            "is known."
        )
    yield "Another training run may give something else: one seed has no interval over seeds."


def _over_rl_seeds(profile: Profile, made: Published, played: dict[str, pd.DataFrame]) -> Iterator[Block]:
    """Where RL was run with several seeds from one SFT checkpoint: the mean, with the interval over RL seeds."""
    starts: dict[int, list[pd.DataFrame]] = {}
    for name, rows in played.items():
        where = made.checkpoints[name].censuses[0].where
        if where.get("control") == MAIN:
            starts.setdefault(int(where["start"]), []).append(rows)
    lines = []
    splits = [name for name in SETS if any(name in set(rows["split"]) for rows in played.values())]
    for start, runs in sorted(starts.items()):
        for title, (column, last) in _measures(profile).items() if len(runs) > 1 else ():
            solved = [
                [r.loc[r["split"] == split, column].between(1, last).mean() for r in runs] for split in splits
            ]
            cells = [f"{t_interval(shares):.3f}" for shares in solved]
            lines.append((f"{start:,}", str(len(runs)), title, *cells))
    if lines:
        yield "Over RL seeds from the same SFT checkpoint: mean, and in brackets a 95 % t interval over RL seeds."
        head = ("RL from SFT step", "RL seeds", "share of hands solved", *(SETS[split] for split in splits))
        yield Table(head, tuple(lines))


def _use(made: Published, folder: Path) -> Iterator[Block]:
    evaluated = [name for name, one in made.checkpoints.items() if one.censuses]
    name = (evaluated or list(made.checkpoints))[-1]
    place = f'"FOLDER", subfolder="{CHECKPOINTS}/{name}"'
    yield "Each checkpoint loads alone. `FOLDER` is this folder, or its name on the hub:"
    yield (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({place})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place})\n```"
    )
    yield (
        "With rlheals and a copy of the folder on disk: is every byte the same; does a checkpoint give its recorded "
        "episodes again, one by one; the same evaluation as a table of your own."
    )
    lines = ["rlheals publish --check FOLDER"]
    if evaluated:
        lines.append(f"rlheals publish --check FOLDER --again {name}")
        if (seed := made.checkpoints[name].censuses[0].seed) <= LARGEST_OPTION:
            options = f"--profile FOLDER/{SETTINGS} --seed {seed} --out again"
            lines.append(f"rlheals evaluate --folder FOLDER/{CHECKPOINTS}/{name} {options}")
    yield "```bash\n" + "\n".join(lines) + "\n```"
    yield (
        f"`{RESULTS}/` holds the tables behind these numbers in the form that rlheals records: one row per hand, "
        "sampling seed and checkpoint in `episodes.parquet`."
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


def _origin(made: Published, machines: str) -> Iterator[str]:
    yield (
        f"{len(made.runs)} runs, {made.minutes:.1f} process-minutes. `manifest.json` names them all with the "
        "hash of their code, and the sha256 of every file."
    )
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    yield f"Versions: {versions}. Computed on: {machines}."
