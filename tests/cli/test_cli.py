"""The command line: exit codes, one line for bad input, JSON and nothing else, and examples that work."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from lab_helpers import TINY, flip_bit
from safetensors import SafetensorError

from rlheals.book.notebooks import NotebookFailed
from rlheals.chapters.registry import CHAPTERS
from rlheals.cli.main import app, main
from rlheals.cli.options import parse_seeds, parse_settings
from rlheals.display.markup import spans
from rlheals.engines.models import SHIPPED_BASE
from rlheals.errors import BadInput
from rlheals.tasks.general_points import task as hands
from rlheals.tasks.general_points.verifier import REWARDS
from rlheals.training.adopt import weights_hash

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHEALS_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("RLHEALS_DEBUG", raising=False)
    return tmp_path


class Said(NamedTuple):
    """What a command said: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def data(self):  # any JSON
        return json.loads(self.out)

    def is_bad_input(self) -> bool:
        """Exit code 2, one line on stderr that begins with our name, nothing on stdout."""
        lines = self.err.splitlines()
        return self.code == 2 and self.out == "" and len(lines) == 1 and lines[0].startswith("rlheals: ")


Say = Callable[..., Said]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    return lambda *arguments: Said(main(arguments), *capfd.readouterr())


# --- help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(name: str, say: Say) -> None:
    said = say(name, "--help")
    assert said.code == 0
    assert f"Example: rlheals {name}" in said.out
    assert "--json" in said.out
    assert f"  {name} " in say().out


def documented_commands() -> list[str]:
    """Every command line in the help, the README and the book."""
    lines = [command.epilog.removeprefix("Example: ") for command in COMMANDS.values()]
    for page in (ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))):
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.M | re.S):
            lines += re.findall(r"^rlheals .*$", block.replace("\\\n", ""), flags=re.M)
    return sorted(set(lines))


@pytest.mark.parametrize("line", documented_commands())
def test_documented_command_lines_are_accepted(line: str) -> None:
    program, name, *rest = shlex.split(line, comments=True)
    assert program == "rlheals"
    if "--help" not in rest:
        try:
            COMMANDS[name].make_context(name, rest)  # raises a usage error
        except typer.BadParameter as error:
            if "does not exist" not in str(error):  # a folder of the reader's
                raise


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from rlheals.cli.main import main; main(['report', '--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'yaml', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- wrong calls

WRONG = [
    ("nonsense", "nonsense"),
    ("grade 'A 5 J X' 24", "'X'"),
    ("grade 'A 5 J K' 24 --rule 0,7,2", "from 1 to 13"),
    ("grade 'A 5 J K' 24 --compat exact", "exact"),
    ("grade '3 3 8 8' -1+25", 'Put "--" before'),
    ("census --rule purple", "'id', 'ood', 'both'"),
    ("grade --task navigations ood/3lLlR/00 x", "navigations"),
    ("grade --task navigation ood/3lLlR x", "id/3lLlR/00"),
    ("grade --task rank x y --rule ood", "--rule"),
    ("grade --task rank x y --compat exact", "exact"),
    ("census --task rank --split mood", "mood"),
    ("census --task rank --rule ood", "--split"),
    ("census --split ood", "--task"),
    ("sft", "--seed"),
    ("sft --seed -1", "--seed"),
    ("sft --seed 0 --profile smok", "smok"),
    ("sft --seed 0 --profile missing.yaml", "missing.yaml"),
    ("sft --seed 0 --profile wrong.yaml", "learning_rat"),
    ("sft --seed 0 --set sft.learning_rate", "NAME=VALUE"),
    ("sft --seed 0 --set sft.learning_rate=quick", "sft.learning_rate"),
    ("sft --seed 0 --set sft.batch=1 --set sft.batch=2", "twice"),
    ("sft --seed 0 --set 'sft.batch=[1'", "YAML"),
    ("evaluate", "--step"),
    ("evaluate --step 3", "--step 3; accepted: the checkpoints 0, "),
    ("evaluate --folder missing", "'missing' does not exist"),
    ("evaluate --folder weightless/config.json", "config.json' is a file"),
    ("evaluate --folder weightless", "safetensors"),
    ("evaluate --folder theirs --attempts 1", "theirs"),
    ("evaluate --step 40 --split purple", "splits"),
    ("evaluate --step 40 --out full", "full"),
    ("pretrain --seed 1 --out full", "full"),
    ("rl --seed 0 --start 77", "--start 77; accepted: the checkpoints 0, "),
    ("rl --seed 0 --start 160 --set rl_starts.rl.group=7", "group=7"),
    ("run sft missing.json", "missing.json"),
    ("run sft words.json", "words.json"),
    ("run sft adopt.json", "adopt"),
    ("study --variant purple", "purple"),
    ("study --profile smoke --variant strict", "--variant"),
    ("study --recovery --edits", "--recovery and --edits"),
    ("study --recovery --dry-run", "--recovery"),
    ("study --profile smoke --missing", "--record"),
    ("study --set sft.batch=2", "--set"),
    ("study --profile smoke --workers 0", "--workers"),
    ("study --profile smoke --scheduler tcp://a:1 --slurm s.yaml", "only one of the two"),
    ("replay nowhere --seed 1", "'nowhere' does not exist"),
    ("notebook missing", "missing"),
    ("notebook missing -p seeds", 'NAME VALUE, as in -p seeds "[7]"'),
    ("report --profile smoke --out words.json", "words.json"),
    ("report --profile smoke --seeds ''", "seed"),
    ("report --readme missing.md", "missing.md"),
    ("report --readme words.json", "claims:begin"),
    ("claims --results nowhere", "--results 'nowhere': no such folder"),
    ("doctor --repair", "--repair: only with --store"),
    ("edit runs/base full --edit 'values(all)' --out new", "'runs/base': no such file or folder"),
    ("sft --seed 1 --profile gpu --set model.name=runs/base", "'runs/base': no such folder"),
    ("serve nowhere", "'nowhere': no such folder"),
    ("publish --seed 1", "--out FOLDER"),
    ("publish --out x", "--seed"),
    ("publish --seed 1 --out x --private", "--private"),
    ("publish --seed 1 --out x --again base", "--again"),
    ("publish --check x --out y", "--check"),
    ("publish --check .", "manifest.json"),
    ("publish --seed 1 --out x --steps 77", "77"),
    ("publish --seed 1 --out x --recovery", "rlheals study --profile lab --seeds 1"),
    *((f"publish --seed 1 --out x --hub {name}", "OWNER/NAME") for name in ("lab", "a/b/c", "../x")),
]


@pytest.fixture
def odd_files(empty_folder: Path) -> None:
    """Files that are not what a command needs."""
    for name, text in {
        "words.json": "words, not JSON",
        "adopt.json": '{"stage": "adopt", "settings": {}}',
        "wrong.yaml": "name: wrong\nsft: {learning_rat: 1}\n",
        "runs/notes": "mine",
        "full/precious": "mine",
    }.items():
        (empty_folder / name).parent.mkdir(exist_ok=True)
        (empty_folder / name).write_text(text)
    for name in ("weightless", "theirs"):
        shutil.copytree(SHIPPED_BASE, empty_folder / name)
    (empty_folder / "weightless/model.safetensors").unlink()
    config = json.loads((SHIPPED_BASE / "config.json").read_text())
    own = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}}
    (empty_folder / "theirs/config.json").write_text(json.dumps(config | own))
    (empty_folder / "theirs/theirs.py").write_text("open('/dev/full', 'w').write('ran')")


@pytest.mark.usefixtures("odd_files")
@pytest.mark.parametrize(("line", "says"), WRONG)
def test_a_wrong_call_is_one_line_that_says_what_is_accepted(
    line: str,
    says: str,
    empty_folder: Path,
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", Mock(side_effect=AssertionError("a question was asked")))
    before = sorted(str(path) for path in empty_folder.rglob("*"))
    said = say(*shlex.split(line))
    assert said.is_bad_input(), (said.code, said.out, said.err)
    assert says in said.err
    assert sorted(str(path) for path in empty_folder.rglob("*")) == before


def test_a_full_disk_is_told_with_its_folder(
    empty_folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr("rlheals.weights.checkpoint.save_file", Mock(side_effect=error))
    edit = ("--edit", "values(all)", "--where", "kinds=q layers=0", "--out", "new")
    said = say("edit", str(SHIPPED_BASE), str(SHIPPED_BASE), *edit)
    assert said.is_bad_input()
    assert f"{empty_folder}: disk full" in said.err
    assert not list(empty_folder.iterdir())


def test_equal_checkpoints_are_drawn_without_a_warning(say: Say, recwarn: pytest.WarningsRecorder) -> None:
    base = str(SHIPPED_BASE)
    said = say("spectra", base, base, "--matrices", "q", "--k", "4", "--null", "0", "--out", "page")
    assert (said.code, said.err) == (0, "")
    assert not [warning for warning in recwarn if "log" in str(warning.message)]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BadInput("a\nb \x1b[2J c"), 2, "rlheals: a b ?[2J c"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 2, "/data/x: disk full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 2, "/data/x: permission denied"),
        (RuntimeError("write failed: No space left on device (os error 28)"), 2, "disk full"),
        (RuntimeError("first\nsecond"), 1, "RuntimeError: first (set RLHEALS_DEBUG=1"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 1, "FileNotFoundError"),
        (NotebookFailed("cell 3: ValueError", "ValueError"), 1, "cell 3"),
        (NotebookFailed("cell 1: BadInput", "BadInput"), 2, "cell 1"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_error_has_its_exit_code_and_at_most_one_line(
    error: BaseException,
    code: int,
    says: str,
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hands, "graded", Mock(side_effect=error))
    monkeypatch.setattr("rlheals.cli.terminal._discard_stdout", lambda: None)  # stdout is pytest's here
    said = say("grade", "3 3 8 8", "24")
    assert (said.code, said.out, len(said.err.splitlines())) == (code, "", 1 if says else 0)
    assert says in said.err


def test_traceback_on_request_only(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "graded", lambda *_: 1 // 0)
    monkeypatch.setenv("RLHEALS_DEBUG", "1")
    said = say("grade", "3 3 8 8", "24")
    assert (said.code, "Traceback" in said.err) == (1, True)
    assert said.err.splitlines()[-1].startswith("rlheals: failed: ZeroDivisionError")


IN_A_COMMAND = """
from rlheals.tasks.general_points import task as hands
from rlheals.cli.main import main
hands.graded = wait
sys.exit(main(['grade', '3 3 8 8', '24']))
"""
IN_A_DESTRUCTOR = """
import typer
from rlheals.cli import terminal
class Noisy:
    __del__ = wait
app = typer.Typer()
app.command()(lambda: invoke())
def invoke():
    Noisy()
    time.sleep(20)
sys.exit(terminal.guarded(app, []))
"""


@pytest.mark.parametrize("script", [IN_A_COMMAND, IN_A_DESTRUCTOR], ids=["command", "destructor"])
@pytest.mark.parametrize(
    ("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_ends_with_one_line(script: str, name: str, code: int, word: str) -> None:
    """Also one that falls into a destructor, of which Python prints what it raises and goes on."""
    begin = f"import signal, sys, time\ndef wait(*_):\n    signal.raise_signal(signal.{name})\n    time.sleep(20)\n"
    done = subprocess.run([sys.executable, "-c", begin + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stderr.startswith(f"rlheals: {word}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["census", "--rule", "id", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "rlheals", *arguments]
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(line, stdout=closed, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


# --- what the commands print


@pytest.mark.parametrize("task", ["determinant", "determinant_rules", "navigation"])
def test_grade_and_census_know_every_task(task: str, say: Say) -> None:
    listed = say("census", "--task", task, "--split", "ood", "--json").data["items"]
    one = listed[len(listed) // 2]
    said = say("grade", "--task", task, one["id"], one["answer"], "--json")
    assert (said.data["category"], said.data["rule"]) == ("correct", one["rule"])
    said = say("grade", "--task", task, one["id"], "\x00", "--json")
    assert (said.code, said.err, said.data["solved"]) == (0, "", False)
    assert any("ood" in line for line in say("census", "--task", task, "--json").data["facts"])


@pytest.mark.parametrize(
    ("answer", "category"),
    [("8/(3-8/3)", "correct"), ("8+8+8", "wrong_number"), ("__import__('os').abort()", "illegal_formula"),
     ("\x00", "illegal_formula"), ("", "illegal_formula")],
)  # fmt: skip
def test_grade_exits_0_whatever_the_verdict(answer: str, category: str, say: Say) -> None:
    said = say("grade", "3 3 8 8", answer, "--json")
    assert (said.code, said.err) == (0, "")
    assert (said.data["category"], said.data["reward"]) == (category, REWARDS[category])


def test_grade_knows_the_other_rule_the_reference_and_hands_without_a_solution(
    say: Say,
) -> None:
    said = say("grade", "J 2 3 A", "2+11*(3-1)", "--json")
    assert (said.data["category"], said.data["read_as"]) == ("wrong_rule", "ood")
    assert say("grade", "3 3 8 8", "8/(3-8/3)", "--compat", "reference", "--json").data["reward"] == 0
    said = say("grade", "A A A A", "1+1+1+1", "--json")
    assert (said.code, said.data["solvable"], said.data["category"]) == (0, False, "no_solution")


@pytest.mark.parametrize(("data", "code"), [(b"8/(3-8/3)\n", 0), (b"\xff\xfe", 2), (b"1" * 1_000_001, 2)])
def test_grade_reads_an_answer_from_stdin(data: bytes, code: int) -> None:
    line = [sys.executable, "-m", "rlheals", "grade", "3 3 8 8", "-", "--json"]
    done = subprocess.run(line, input=data, capture_output=True, timeout=60)
    assert done.returncode == code
    assert (done.stdout == b"") == (code == 2)
    assert len(done.stderr.splitlines()) == (1 if code else 0)


def test_census_counts_and_lists(say: Say) -> None:
    counts = say("census", "--json").data
    assert (counts["all"], counts["id"], counts["ood"], counts["both"]) == (1820, 1236, 796, 529)
    assert counts["sft"] + counts["rl"] + counts["held_out"] == counts["id"]
    listed = say("census", "--rule", "5,7,2", "--json").data
    assert (listed["rule"], listed["count"], len(listed["hands"])) == ("J5-Q7-K2", 890, 890)
    assert len(say("census", "--rule", "ood").out.splitlines()) == 796


def test_doctor_finds_nothing_missing_here_and_shows_no_token(
    empty_folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = say("doctor", "--json")
    assert said.code == 0, said.data["problems"]
    assert said.data["environment"]["HF_TOKEN"] == "set"
    assert "hf_secret" not in said.out
    store = said.data["store"]
    assert store.pop("free_gb") > 0
    assert store == {"folder": str(empty_folder / "store"), "runs": 0, "damaged": [], "leftovers": []}
    assert [profile["name"] for profile in said.data["profiles"]] == ["smoke", "lab"]
    assert all(profile["in_store"] == 0 < profile["runs"] for profile in said.data["profiles"])
    assert not (empty_folder / "store").exists()
    assert say("doctor").out.endswith("nothing is missing\n")


@pytest.mark.parametrize("place", ["words", "words/below"])
def test_doctor_says_what_is_missing(
    place: str, empty_folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "words").write_text("not a folder")
    monkeypatch.setenv("RLHEALS_STORE", str(empty_folder / place))
    said = say("doctor", "--json")
    (problem,) = said.data["problems"]
    assert said.code == 1
    assert "cannot be written" in problem
    assert "MISSING" in say("doctor").out


def test_run_does_one_unit_and_doctor_lists_and_repairs_it(empty_folder: Path, say: Say) -> None:
    (empty_folder / "unit.json").write_text(
        json.dumps({"stage": "adopt", "settings": {"sha256": weights_hash()}})
    )
    said, again = (say("run", "adopt", "unit.json", "--json") for _ in range(2))
    assert said.data == again.data
    assert "loaded" in again.err
    made = Path(said.data["path"])
    whole = say("doctor", "--store", "--json")
    assert whole.code == 0
    assert (whole.data["runs"], whole.data["damaged"], whole.data["leftovers"]) == (1, [], [])
    assert set(whole.data["stages"]) == {"adopt"}
    flip_bit(made / "base/model.safetensors")
    other, mine = empty_folder / "store/runs/notes", empty_folder / "store/scratch" / ("0" * 64)
    other.mkdir(), mine.mkdir(parents=True)
    (mine / "part").write_text("of an unfinished run")
    found = say("doctor", "--store", "--json")
    assert found.code == 1
    assert found.data["runs"] == 0
    assert any(made.name[:12] in line for line in found.data["damaged"])
    assert made.exists(), "listing changes nothing"
    assert "--repair removes them" in say("doctor", "--store").out
    repaired = say("doctor", "--store", "--repair", "--json")
    assert repaired.data["removed"] == [f"runs/{made.name}"]
    assert not made.exists()
    assert other.exists(), "what is not ours is left alone"
    assert (mine / "part").exists(), "an unfinished run resumes from there"
    other.rmdir()
    assert say("doctor", "--store").code == 0
    assert "computing" in say("run", "adopt", "unit.json").err
    assert say("doctor", "--store", "--json").data["runs"] == 1


def test_doctor_sees_an_absent_and_an_old_package(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["no-such-package-here>=1", "numpy<1", "also-absent; extra == 'gpu'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: declared)
    said = say("doctor", "--json")
    assert said.code == 1
    assert [problem.split(":")[0] for problem in said.data["problems"]] == ["no-such-package-here", "numpy"]


def test_doctor_lists_every_setting(say: Say) -> None:
    said = say("doctor", "--profiles")
    assert said.code == 0
    for setting in ("sft.learning_rate", "pretrain.model.hidden", "evaluate.sampling.temperature", "diverse"):
        assert setting in said.out


def test_claims_are_printed_chapter_by_chapter(empty_folder: Path, say: Say) -> None:
    """A small study: only SFT is recorded, and one RL seed of one base, so that all others have no verdict."""
    shutil.copytree(ROOT / "results/lab", empty_folder / "some/lab")
    run = "lab-recovery/seed-11-run-0"
    shutil.copytree(ROOT / "results" / run, empty_folder / "some" / run)
    said = say("claims", "--results", "some")
    data = say("claims", "--results", "some", "--json").data
    assert said.code == 0
    assert set(data) == set(CHAPTERS)
    for key, one in data.items():
        assert f"{one['title']}:" in said.out
        assert bool(one["missing"]) == (key != "sft")
        for claim in one["claims"]:
            assert (claim["verdict"] is None) == (key != "sft")
            assert f"{claim['verdict'] or 'no verdict':14} {claim['sentence']}" in said.out
    assert {key for key, one in data.items() if one["missing"] == ["nothing is recorded"]} == {
        "rotation", "swaps", "protection", "healing", "beyond",
    }  # fmt: skip


# --- seeds and settings


@given(st.sets(st.integers(0, 9999), min_size=1, max_size=40))
def test_seeds_survive_being_written_and_read(seeds: set[int]) -> None:
    assert parse_seeds(spans(sorted(seeds))) == tuple(sorted(seeds))


@pytest.mark.parametrize("text", ["", "1,", "a", "-1", "3-1", "1-3,2", "10000", "1.5", "٣", "1--2"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize("pair", ["a=!!python/object/apply:os.abort []", "=1", "a"])
def test_settings_that_are_none(pair: str) -> None:
    with pytest.raises(BadInput, match="--set"):
        parse_settings([pair])


# --- RL from one checkpoint

QUICK_RL = "{checkpoints: [1], episodes: 8, group: 4, micro_batch_size: 4, attempts: 2, loss_examples: 4}"


def test_rl_from_one_checkpoint_says_where_its_weights_are_and_is_loaded_the_second_time(
    empty_folder: Path, say: Say
) -> None:
    (empty_folder / "tiny.yaml").write_text(f"{TINY}rl_starts: {{starts: [2], rl: {QUICK_RL}}}\n")
    line = ["rl", "--seed", "0", "--start", "2", "--profile", "tiny.yaml", "--json"]
    told = say(*line).data
    assert told["updates"] == 1
    assert (Path(told["folder"]) / "model.safetensors").is_file()
    assert told["first_update"]["attempts"] <= 2
    again = say(*line)
    assert again.data == told
    assert again.err.count("loaded") == 3
    assert say(*line, "--run", "1").data["id"] != told["id"]


# --- a whole command, interrupted and taken up again


@pytest.mark.slow
def test_an_interrupted_sft_leaves_nothing_half_done_and_goes_on(empty_folder: Path) -> None:
    (empty_folder / "tiny.yaml").write_text(TINY.replace("[0, 2, 4], batch", "[0, 2, 4, 1000], batch"))
    line = [sys.executable, "-m", "rlheals", "sft", "--seed", "0", "--profile", "tiny.yaml", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [next(line for line in process.stderr if line.startswith("sft"))]
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("rlheals: interrupted")
    assert "Traceback" not in err
    assert said[0].endswith("computing\n")
    assert list((empty_folder / "store/tmp").iterdir()) == []
    assert len(list((empty_folder / "store/runs").iterdir())) == 1  # the base
    line[line.index("tiny.yaml")] = str(empty_folder / "short.yaml")
    (empty_folder / "short.yaml").write_text(TINY)
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checkpoints"] == [0, 2, 4]
    assert "adopt" in done.stderr
    assert "loaded" in done.stderr


def test_a_home_folder_that_the_shell_left_in_is_found(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(empty_folder / "home"))
    (empty_folder / "home").mkdir()
    assert main(["spectra", str(SHIPPED_BASE), str(SHIPPED_BASE), "--null", "0", "--out=~/one"]) == 0
    edit = ["edit", str(SHIPPED_BASE), str(SHIPPED_BASE), "--edit", "values(all)", "--out", "~/two"]
    assert main(edit) == 0
    assert sorted(path.name for path in (empty_folder / "home").iterdir()) == ["one", "two"]
    assert not (empty_folder / "~").exists()


def test_a_terminal_without_the_letters_ends_no_command() -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-m", "rlheals", "grade", "A 5 J K"]
    done = subprocess.run([*line, "(13-1)*(11-5-9)…".encode()], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"illegal character" in done.stdout
    done = subprocess.run([*line, b"\xff"], capture_output=True, env=env, check=False)
    assert done.returncode == 2
    assert b"is not UTF-8 text" in done.stderr
