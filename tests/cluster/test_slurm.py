"""A small configuration on a real Slurm of one node gives the tables of a local run."""

from importlib.util import find_spec

import pytest
from run import compare
from slurm import AbsentError, install

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    try:
        install()
        return compare(tmp_path_factory.mktemp("cluster"), ["tests/cluster/small.yaml"])
    except AbsentError as reason:
        pytest.skip(str(reason))


def test_tables_are_the_same_bytes_as_those_of_a_local_run(compared):
    assert compared.different == []
    assert len(compared.equal) > 5


def test_every_job_was_one_of_slurm_and_ended_well(compared):
    assert len(compared.jobs) == compared.steps - 1  # all but `all`, which has nothing to do
    assert {job["JobState"] for job in compared.jobs} == {"COMPLETED"}
    assert len({job["JobId"] for job in compared.jobs}) == len(compared.jobs)
