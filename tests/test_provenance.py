"""What made every result file: from the records that jobs leave beside their logs."""

import os

from ecc import provenance as records
from ecc.evidence import provenance


def job(results, rule, name, *files):
    """A job has written `files`, which are there."""
    log = results / "logs" / rule / f"{name}.log"
    for path in (log, *(results / file for file in files)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    records.write(log, [results / file for file in files])
    return log


def test_every_file_has_its_rule_and_what_is_about_to_be_written_too(tmp_path):
    job(tmp_path, "compress", "a", "compressed/a/metrics.json", "compressed/a/history.csv")
    job(tmp_path, "tables", "all", "tables/widths.csv")
    job(tmp_path, "checksums", "all", "checksums.txt")  # of the run before
    (tmp_path / "compressed/a/history.csv").unlink()
    own = records.of_job(tmp_path / "logs/claims/all.log", [tmp_path / "index.html"])
    found = provenance.by_file(tmp_path, own)
    assert list(found) == provenance.FILES
    assert found[["file", "rule", "job"]].to_numpy().tolist() == [
        ["compressed/a/metrics.json", "compress", "a"],
        ["index.html", "claims", "all"],
        ["tables/widths.csv", "tables", "all"],
    ]
    assert set(found["commit"]) == {records.commit()}
    assert found["hardware"].str.contains("cores: ").all()
    assert found["versions"].str.contains("numpy: ").all()


def test_of_two_jobs_that_name_a_file_the_later_one_wrote_it(tmp_path):
    """As where `batch` has changed, by which jobs have other names."""
    later = job(tmp_path, "compress", "a", "metrics.json")
    earlier = job(tmp_path, "compress", "a-seed0", "metrics.json")
    os.utime(records.record_of(earlier), (1, 1))
    own = records.of_job(tmp_path / "logs/claims/all.log", [])
    assert list(provenance.by_file(tmp_path, own)["job"]) == [later.stem]


def test_rules_have_the_number_of_their_jobs_and_files(tmp_path):
    for name in "ab":
        job(tmp_path, "compress", name, f"{name}/metrics.json", f"{name}/history.csv")
    own = records.of_job(tmp_path / "logs/claims/all.log", [tmp_path / "index.html"])
    counted = provenance.by_rule(provenance.by_file(tmp_path, own))
    assert counted[["rule", "jobs", "files"]].to_numpy().tolist() == [
        ["claims", 1, 1],
        ["compress", 2, 4],
    ]
