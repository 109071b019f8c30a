"""Planning takes so much a job, and no more where there are many of them."""

import pytest

from benchmarks.graph_scale import plan

pytestmark = pytest.mark.workflow


def test_a_job_more_takes_milliseconds_and_kilobytes_more_to_plan():
    few, many = plan(100, 10, []), plan(800, 80, [])
    assert (many["compression_jobs"], many["chunks"]) == (800, 80)
    jobs = many["jobs"] - few["jobs"]
    assert (many["cpu_seconds"] - few["cpu_seconds"]) / jobs < 0.015  # 2 to 5 ms
    assert (many["peak_memory_mb"] - few["peak_memory_mb"]) / jobs < 0.1
