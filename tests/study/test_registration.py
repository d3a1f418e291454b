"""Registration: git, the data file and manifests agree on what was committed before what was computed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lab_helpers import one_line

from rlheals.chapters.registry import CHAPTERS
from rlheals.errors import BadInput
from rlheals.store.machine import this_machine
from rlheals.study import record, registration
from rlheals.study.record import Recorded, RecordedRun
from rlheals.study.registration import DATA, Version, from_data, from_git, order, registered, versions

ROOT = Path(__file__).parents[2]
CLAIM = {"id": "a", "sentence": "It is so.", "estimator": "rise", "margin": 0.05}
STUDY = {"profile": "lab", "seeds": [11, 12, 13]}


def text(version: int = 2, **changes: object) -> str:
    later = {"study": STUDY, "claims": [{**CLAIM, "id": "b"}]}
    claims = {"version": version, "study": STUDY, "claims": [{**CLAIM, **changes}], "later": later}
    return json.dumps(claims, indent=1)  # which is YAML, too


class Repository:
    """A checkout with a package folder; every commit is a minute later than the one before."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.minute = root, root / "rlheals", 0
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> str:
        when = f"2026-11-29T19:{self.minute:02d}:00Z"
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        own |= {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "GIT_CONFIG_GLOBAL": os.devnull}
        name = ("-c", "user.name=x", "-c", "user.email=x@x")
        command = ["git", "-C", str(self.root), *name, *arguments]
        return subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout

    def commit(self, subject: str, content: str, name: str = "claims.yaml") -> None:
        self.minute += 1
        (self.folder / name).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", subject)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "checkout")
    made.commit("Decided", text())
    made.commit("Reworded", text(sentence="So it is."))
    made.commit("Another margin", text(margin=0.1))
    return made


def manifest(claims: str, *started: str) -> Recorded:
    runs = tuple(
        RecordedRun(stage="sft", id="0" * 64, seed=11, code_hash="0" * 64, started=one, seconds=1)
        for one in started
    )
    return Recorded(
        profile={"name": "lab", "decodes": 1}, seed=11, started="2026-11-29T19:00:00Z", claims=claims,
        machine=this_machine(), versions={"torch": "2"}, runs=runs, files={},
    )  # fmt: skip


# ---- versions


def test_a_part_is_registered_where_its_tests_are_new_and_wording_keeps_it(repository: Repository) -> None:
    first, reworded, margin = known = from_git(repository.folder)
    assert [one.subject for one in known] == ["Decided", "Reworded", "Another margin"]
    assert first.time == "2026-11-29T19:01:00Z"
    assert registered(known, reworded.sha256, "sft") == first
    assert registered(known, margin.sha256, "sft") == margin
    assert registered(known, margin.sha256, "later") == first
    assert registered(known, "0" * 64, "sft") is None
    assert registered(known, margin.sha256, "no-such-part") is None


def test_two_registrations_side_by_side_do_not_mix(repository: Repository) -> None:
    repository.commit("The next one", text(3, margin=0.2), "claims_2.yaml")
    repository.commit("The old one, reworded", text(2, margin=0.1, sentence="Oh."))
    repository.git("mv", "-f", "rlheals/claims_2.yaml", "rlheals/claims.yaml")
    repository.commit("It decides", text(3, margin=0.2))
    repository.commit("Its words", text(3, margin=0.2, sentence="Ah."))
    known = from_git(repository.folder)
    assert [one.file for one in known[3:]] == ["claims_2.yaml", *["claims.yaml"] * 3]
    for last in known[-2:]:
        found = registered(known, last.sha256, "sft")
        assert found is not None
        assert found.subject == "The next one"


def test_only_the_folder_says_which_repository_is_meant(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = from_git(repository.folder)
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    assert from_git(repository.folder) == before


@pytest.mark.parametrize("why", ["shallow", "exported", "untracked", "no git"])
def test_without_history_the_data_file_is_used_and_that_is_said(
    why: str, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = registration.write_data(repository.folder / DATA.name)
    repository.commit("Listed", text(margin=0.1))
    folder = tmp_path / "elsewhere" / "rlheals"
    if why == "shallow":
        subprocess.run(
            ["git", "clone", "-q", "--depth", "1", repository.root.as_uri(), str(folder.parent)], check=True
        )
    elif why == "untracked":
        folder = repository.root / ".venv" / "rlheals"
        shutil.copytree(repository.folder, folder)
    else:
        shutil.copytree(repository.folder, folder)
    if why == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    known, said = versions(folder)
    assert known == written
    assert DATA.name in said
    assert "no git history of claims.yaml here" in said
    assert ("shallow clone" in said) == (why == "shallow")
    if why != "no git":
        assert "From the git history" in versions(repository.folder)[1]
    (folder / DATA.name).write_text("[{}]")
    with pytest.raises(BadInput, match=r"registration\.json cannot be read") as refused:
        versions(folder)
    one_line(refused.value)


# ---- order


def test_the_order_of_commit_and_runs_is_told(repository: Repository) -> None:
    first, reworded, margin = known = from_git(repository.folder)
    early, late = "2026-11-29T19:01:00Z", "2026-11-29T19:01:01Z"
    kept = order(known, "sft", [manifest(reworded.sha256, late, "2026-11-29T20:00:00Z")])
    assert kept.kept
    assert (kept.registered, kept.first, kept.runs) == (first, late, 2)
    broken = order(known, "sft", [manifest(first.sha256, early, late), manifest(margin.sha256, late)])
    assert not broken.kept
    assert broken.before == 2, "one in the second of the commit, one before another margin was registered"
    told = order(known, "sft", [manifest(first.sha256, late), manifest("f" * 64, late)])
    assert not told.kept
    assert told.unknown
    assert not order(known, "sft", []).runs


# ---- of this project


def history() -> list[Version]:
    try:
        return from_git()
    except BadInput as error:
        pytest.skip(str(error))


def test_the_data_file_is_what_git_says() -> None:
    """Else run `rlheals claims --registration`. A version that is committed last cannot name its own commit."""
    known, listed = history(), from_data()
    assert listed == known[: len(listed)]
    lacking = {one.commit for one in known[len(listed) :]}
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert lacking <= {head}, "rlheals claims --registration"
    assert json.loads(DATA.read_text()) == [one.model_dump(mode="json") for one in listed]


def test_whatever_names_its_registration_was_computed_after_it() -> None:
    known, found = from_data(), record.recorded_manifests(ROOT / "results")
    for key, entry in CHAPTERS.items():
        for name, manifests in found.items():
            named = [one for one in manifests if one.claims is not None]
            own = name.endswith(entry.part.suffix) and entry.part.suffix
            if own or (key == "sft" and name == entry.claims.read().study.profile):
                assert not named or order(known, key, named).kept, f"{name}: {key}"
