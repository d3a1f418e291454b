"""The file of `--slurm` is checked before anything is started."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lab_helpers import one_line

from rlheals.errors import BadInput
from rlheals.study import dask as dask_workers
from rlheals.study.slurm import SlurmFile, read_slurm_file

WHOLE = """
partition: long
account: physics
walltime: "1-12:30:00"
cores: 4
memory: 32 GiB
directives: ["--constraint=a100", "--mail-type=END"]
prologue: ["module load python/3.11"]
jobs: 12
stages:
  rl: {gpus: 2, partition: gpu}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "slurm.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_stage_gets_what_it_needs_and_the_rest_from_above(tmp_path: Path) -> None:
    found = read_slurm_file(written(tmp_path, WHOLE))
    assert found.jobs == 12
    sft, rl = found.job("sft"), found.job("rl")
    assert (sft.gpus, sft.partition, rl.gpus, rl.partition) == (0, "long", 2, "gpu")
    assert rl.model_copy(update={"gpus": 0, "partition": "long"}) == sft == found.job("evaluate")
    assert sft.minutes == 36 * 60 + 30


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    assert read_slurm_file(written(tmp_path, "")) == SlurmFile()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("partitoin: gpu", "partitoin is not a setting; accepted: partition"),
        ("partition: 'gpu; rm -rf /'", "partition"),
        ('directives: ["--x\\n#SBATCH --uid=0"]', "directives.0"),
        ('prologue: ["a\\rb"]', "prologue.0"),
        ("prologue: module load x", "prologue"),
        ("walltime: 4h", "walltime"),
        ("walltime: 14400", "walltime"),
        ("memory: lots", "memory"),
        ("gpus: -1", "gpus"),
        ("gpus: 1.5", "gpus"),
        ("jobs: 0", "jobs"),
        ("stages: {sftt: {gpus: 1}}", "'sftt' is not known; accepted: adopt"),
        ("stages: {sft: {gpu: 1}}", "gpu is not a setting"),
        ("stages: {sft: {jobs: 1}}", "jobs is not a setting"),
        ("stages: {sft: 1}", "stages.sft"),
        ("stages: [sft]", "stages"),
        ("- 1", "settings"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("# " + "x" * 200_000, "more than 100,000 bytes"),
        ("[" * 50_000, "is not YAML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str | bytes, named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read_slurm_file(written(tmp_path, text))
    assert named in one_line(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_slurm_file(tmp_path / "none.yaml")


def test_a_job_asks_for_what_the_file_says_and_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    """The job script, without any Slurm; importing dask-jobqueue would change what Ctrl-C does."""
    before = signal.getsignal(signal.SIGINT)
    cluster = dask_workers._slurm(read_slurm_file(written(tmp_path, WHOLE)).job("rl"), tmp_path)
    try:
        script = cluster.job_script().splitlines()
    finally:
        cluster.close()
    assert signal.getsignal(signal.SIGINT) is before
    asked = {line for line in script if line.startswith("#SBATCH")}
    assert asked >= {
        "#SBATCH -p gpu", "#SBATCH -A physics", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=32G",
        "#SBATCH -t 1-12:30:00", "#SBATCH --gres=gpu:2", "#SBATCH --constraint=a100",
    }  # fmt: skip
    assert "module load python/3.11" in script
    (command,) = [line for line in script if "distributed.cli.dask_worker" in line]
    assert "tls://" in command
    assert "--nthreads 1" in command
    assert f"--lifetime {36 * 60 + 25}m" in command
