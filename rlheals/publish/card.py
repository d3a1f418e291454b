"""The model card of a published folder: what is in it, how well it plays and how surely, how to use it, what is not.

The words are in `card.md`, the numbers are computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from rlheals.chapters.rl.runs import MAIN
from rlheals.display.markup import Table, to_markdown
from rlheals.profiles import to_yaml
from rlheals.profiles.profile import Profile
from rlheals.publish import folder as published
from rlheals.publish.folder import Published
from rlheals.stats.intervals import t_interval, wilson
from rlheals.tasks import load_task

TEMPLATE = Path(__file__).with_name("card.md")
SETS = {"sft": "seen ID", "rl": "RL-only ID", "held_out": "held-out ID", "ood": "OOD"}


def card(
    made: Published, profile: Profile, licence: tuple[dict[str, str], str], machines: str, folder: Path
) -> str:
    """README.md of the folder, whose other files are there already but for the manifest."""
    played = {name: one.rows(folder) for name, one in made.checkpoints.items() if one.censuses}
    example = [*made.checkpoints, *played][-1]
    asked = _hands(played)
    there = {split: len(load_task(profile.task).items(split)) for split in asked}
    measures = _measures(profile)
    place = published.CHECKPOINTS
    models = [(f"`{place}/{name}`", one.about, f"`{one.run[:12]}`") for name, one in made.checkpoints.items()]
    text = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=["rlheals", "sft", "reinforcement-learning", "card-game"],
            **licence[0],  # type: ignore[arg-type]
        ),
        template_path=str(TEMPLATE),
        made=made,
        profile=profile,
        folder=published,
        checkpoints=_table(("folder", "what", "run"), models),
        evaluated=bool(played),
        sets=_sets(profile, played, asked, there),
        accuracies={title: _shares(profile, played, asked, *counts) for title, counts in measures.items()},
        all_hands=asked == there,
        temperature=profile.evaluate.sampling.temperature,
        rl_seeds=_over_rl_seeds(profile, made, played, asked),
        settings=to_yaml(profile),
        example=example,
        has_spectra=(folder / published.SPECTRA).is_dir(),
        sets_missing=[SETS[name] for name in SETS if name not in profile.evaluate.splits],
        silent=[f"`{name}`" for name in made.checkpoints if name not in played],
        machines=machines,
        licence=licence[1],
    )
    return f"{text}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return to_markdown([Table(tuple(head), tuple(map(tuple, rows)))]).rstrip()


def _measures(profile: Profile) -> dict[str, tuple[str, int]]:
    """What counts as solved: the column of attempts, and the last attempt that counts."""
    attempts = profile.evaluate.attempts
    within = f"success@{attempts} with feedback"
    found = {within: ("solved_at", attempts), "pass@1": ("solved_at", 1)}
    if profile.model is None:  # only lab models know two formats of an answer
        found[f"{within}, format-agnostic"] = ("solved_at_either", attempts)
    return found


def _hands(played: dict[str, pd.DataFrame]) -> dict[str, int]:
    """How many hands of each set were asked at most."""
    counts = pd.DataFrame(
        {name: rows.groupby("split", observed=True)["item"].nunique() for name, rows in played.items()}
    )
    return {name: int(counts.loc[name].max()) for name in SETS if name in counts.index}


def _sets(
    profile: Profile, played: dict[str, pd.DataFrame], asked: dict[str, int], there: dict[str, int]
) -> str:
    """Every set of hands: how many there are, and what was trained on it."""
    by_rl = profile.rl_starts.rl.splits if any(name.startswith("rl-") for name in played) else ()
    own = profile.sft.expert_file is None
    rows = [
        (
            SETS[name],
            f"{asked[name]:,}",
            f"{there[name]:,}",
            ("yes" if name == "sft" else "no") if own else "not known",
            "yes" if name in by_rl else "no",
        )
        for name in asked
    ]
    return _table(("set", "hands asked", "of all", "SFT trains on it", "RL trains on it"), rows)


def _solved(rows: pd.DataFrame, split: str, column: str, last: int) -> pd.Series:
    """Whether each hand of a set was solved, up to the last attempt that counts."""
    return rows.loc[rows["split"] == split, column].between(1, last)


def _shares(
    profile: Profile, played: dict[str, pd.DataFrame], asked: Iterable[str], column: str, last: int
) -> str:
    """Share of hands solved by every checkpoint; of sampled answers with Wilson's interval."""
    rows = []
    for name, found in played.items():
        cells = [f"`{name}`", str(found["decode"].nunique())]
        for hits in (_solved(found, split, column, last) for split in asked):
            if hits.empty:
                cells.append("not asked")
            elif profile.evaluate.sampling.temperature == 0:
                cells.append(f"{hits.mean():.3f}")
            else:
                cells.append(f"{wilson(int(hits.sum()), len(hits)):.3f}")
        rows.append(cells)
    return _table(("checkpoint", "sampling seeds", *(SETS[split] for split in asked)), rows)


def _over_rl_seeds(
    profile: Profile, made: Published, played: dict[str, pd.DataFrame], asked: Iterable[str]
) -> str:
    """Where RL was run with several seeds from one SFT checkpoint: the mean, with the interval over RL seeds."""
    starts: dict[int, list[pd.DataFrame]] = {}
    for name, found in played.items():
        where = made.checkpoints[name].censuses[0].where
        if where.get("control") == MAIN:
            starts.setdefault(int(where["start"]), []).append(found)
    rows = [
        (
            f"{start:,}",
            str(len(runs)),
            title,
            *(f"{t_interval([_solved(run, split, *counts).mean() for run in runs]):.3f}" for split in asked),
        )
        for start, runs in sorted(starts.items())
        if len(runs) > 1
        for title, counts in _measures(profile).items()
    ]
    head = ("RL from SFT step", "RL seeds", "share of hands solved", *(SETS[split] for split in asked))
    return _table(head, rows) if rows else ""
