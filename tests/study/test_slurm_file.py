"""The file of `--slurm` is checked before anything is started."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lab_helpers import refused

from rlheals.errors import BadInput
from rlheals.study import dask as dask_workers
from rlheals.study.slurm import Job, minutes, read_slurm_file

WHOLE = """
jobqueue:
  slurm:
    queue: long
    account: physics
    walltime: "1-12:30:00"
    cores: 4
    memory: 32 GiB
    job-extra-directives: ["--constraint=a100", "--mail-type=END"]
    job-script-prologue: ["module load python/3.11"]
  rl:
    queue: gpu
    job_extra_directives: ["--gres=gpu:2"]
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "slurm.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_stage_gets_what_it_needs_and_the_rest_from_all(tmp_path: Path) -> None:
    found = read_slurm_file(written(tmp_path, WHOLE))
    assert found.keys() == {"slurm", "rl"}
    assert (found["slurm"].queue, found["rl"].queue) == ("long", "gpu")
    asked = {"queue": "gpu", "job_extra_directives": ("--gres=gpu:2",)}
    assert found["slurm"].model_copy(update=asked) == found["rl"]
    assert minutes(found["rl"].walltime) == 36 * 60 + 30
    assert read_slurm_file(written(tmp_path, "jobqueue: {}")) == {"slurm": Job()}
    with pytest.raises(BadInput, match="No such file"):
        read_slurm_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("partitoin: gpu", "partitoin is not a setting; accepted: name, queue"),
        ("queue: 'gpu; rm -rf /'", "queue"),
        ('job-extra-directives: ["--x\\n#SBATCH --uid=0"]', "job_extra_directives.0"),
        ('job-script-prologue: ["a\\rb"]', "job_script_prologue.0"),
        ("job-script-prologue: module load x", "job_script_prologue"),
        ("python: /opt/my python", "python"),
        ("local-directory: /tmp/$(date)", "local_directory"),
        ("walltime: 4h", "walltime"),
        ("walltime: 14:00:00", "walltime"),  # to YAML a number
        ('walltime: "00:00:00"', "less than 10 minutes"),
        ("memory: lots", "memory"),
        ("memory: 0GB", "memory"),
        ("account: -x", "account"),
        ("queue: --wrap=true", "queue"),
        ("cores: 1.5", "cores"),
        ("processes: 4", "processes is not a setting"),
    ],
)
def test_what_cannot_work_is_named_in_one_line(text: str, named: str, tmp_path: Path) -> None:
    for section in ("slurm", "rl"):
        with refused(named, match=f"jobqueue.{section}: "):
            read_slurm_file(written(tmp_path, f"jobqueue:\n  {section}:\n    {text}\n"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "has to be a YAML mapping"),
        ("jobqueue: {sftt: {cores: 1}}", "jobqueue.sftt is not known; accepted: slurm, adopt"),
        ("jobqueue: {slurm: 1}", "jobqueue.slurm"),
        ("jobqueue: [slurm]", "jobqueue"),
        ("{jobqueue: {}, distributed: {}}", "distributed is not a setting"),
        ("- 1", "has to be a YAML mapping"),
        ("a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_what_is_no_such_file_is_named_in_one_line(text: str | bytes, named: str, tmp_path: Path) -> None:
    with refused(named):
        read_slurm_file(written(tmp_path, text))


def test_a_job_asks_for_what_the_file_says_and_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    """The job script, without any Slurm; importing dask-jobqueue would change what Ctrl-C does."""
    before = signal.getsignal(signal.SIGINT)
    cluster = dask_workers._slurm(read_slurm_file(written(tmp_path, WHOLE))["rl"], tmp_path)
    try:
        script = cluster.job_script().splitlines()
    finally:
        cluster.close()
    assert signal.getsignal(signal.SIGINT) is before
    asked = {line for line in script if line.startswith("#SBATCH")}
    assert asked >= {
        "#SBATCH -p gpu", "#SBATCH -A physics", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=32G",
        "#SBATCH -t 1-12:30:00", "#SBATCH --gres=gpu:2",
    }  # fmt: skip
    assert "module load python/3.11" in script
    (command,) = [line for line in script if "distributed.cli.dask_worker" in line]
    assert "tls://" in command
    assert "--nthreads 1" in command
    assert f"--lifetime {36 * 60 + 25}m" in command


def test_a_store_whose_path_a_shell_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    """dask-jobqueue pastes paths into the job's script without quotes."""
    for name in ("my runs", "a;b", "$HOME", "a\nb"):
        with refused("--slurm: the path of the store"):
            dask_workers._slurm(Job(), tmp_path / name)
        assert not (tmp_path / name).exists()
