"""A small configuration on a real Slurm of one node gives the tables of a local run."""

import time
from importlib.util import find_spec

import pytest
from run import compare
from slurm import AbsentError, install, left_by, running

pytestmark = pytest.mark.workflow


def installed():
    """Skips where Slurm cannot be had; where it can and does not start, that is a failure."""
    try:
        install()
    except AbsentError as reason:
        pytest.skip(str(reason))


def test_what_jobs_have_started_ends_with_slurm(tmp_path):
    installed()
    with running() as slurm:
        slurm.ask("sbatch", "-D", str(tmp_path), "--wrap", "sleep 300 & srun sleep 300")
        deadline = time.monotonic() + 60
        while len(left_by(slurm)) < 6 and time.monotonic() < deadline:
            time.sleep(0.2)
        names = {process.name() for process in left_by(slurm)}
        assert {"slurmstepd", "srun", "sleep"} <= names
    assert left_by(slurm) == []
    assert not slurm.folder.exists()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    installed()
    return compare(tmp_path_factory.mktemp("cluster"), ["tests/cluster/small.yaml"])


def test_tables_are_the_same_bytes_as_those_of_a_local_run(compared):
    assert compared.different == []
    assert len(compared.equal) > 5


def test_every_job_was_one_of_slurm_and_ended_well(compared):
    assert len(compared.jobs) == compared.finished
    assert {job["JobState"] for job in compared.jobs} == {"COMPLETED"}
    assert len({job["JobId"] for job in compared.jobs}) == len(compared.jobs)
    assert compared.queue == {job["JobId"]: "COMPLETED" for job in compared.jobs}
