"""Files that a disk damages, refuses or dates wrongly end in one line that says what to do."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ecc import files, runs
from ecc.errors import UserError, refused

ROOT = Path(__file__).parents[1]


def flip(path, place=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("width,energy_j\n3,0.5\n")
    files.seal(path)
    return path


def test_a_sealed_file_passes_and_one_flipped_bit_is_named(sealed):
    files.verify(sealed)
    flip(sealed, 17)
    with pytest.raises(UserError, match=r"samples.csv is not what its job wrote: delete it"):
        files.verify(sealed)


def test_a_cut_file_is_noticed_and_so_is_a_damaged_seal(sealed):
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=r"samples\.csv"):
        files.verify(sealed)
    sealed.write_bytes(whole)
    files.seal_of(sealed).write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match=r"\.samples\.csv\.sha256"):
        files.verify(sealed)


def test_a_file_without_a_seal_passes(sealed, tmp_path):
    flip(sealed)
    files.unseal(sealed)
    files.verify(sealed)
    files.verify(tmp_path / "never/was")


def test_a_seal_is_what_sha256sum_reads(sealed):
    digest, name = files.seal_of(sealed).read_text().split("  ")
    assert (digest, name) == (files.digest(sealed), "samples.csv\n")


def test_dates_in_the_future_are_refused_and_the_advice_names_the_folder(tmp_path):
    old, new = tmp_path / "data/digits/train/0/0000.png", tmp_path / "tables/a.csv"
    for path in (old, new):
        path.parent.mkdir(parents=True)
        path.write_text("")
        os.utime(path, (0, time.time() - 3600))
    files.refuse_future([tmp_path, tmp_path / "absent"])
    os.utime(old, (0, time.time() + 1e6))  # dates of images decide nothing
    files.refuse_future([tmp_path])
    os.utime(new, (0, time.time() + 3600))
    with pytest.raises(UserError, match=rf"a\.csv is dated .* future.*find {tmp_path} -newermt"):
        files.refuse_future([tmp_path])


def test_a_folder_that_takes_nothing_is_named(tmp_path):
    files.refuse_unwritable(tmp_path / "new/results")
    assert list((tmp_path / "new/results").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/results cannot be written \(Not a directory\)"):
        files.refuse_unwritable(tmp_path / "file/results")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        SafetensorError("Error while serializing: I/O error: No space left (os error 28)"),
    ],
)
def test_what_a_disk_refuses_names_the_file_and_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "model.safetensors"
    runs.write_text(path, "first")

    def write():
        with runs.temporary(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(UserError, match=r"model\.safetensors cannot be written .*same command"):
        write()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_taken_for_those_of_a_disk():
    assert refused(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert refused(ValueError("28")) is None


def test_seconds_are_counted_by_a_clock_that_nobody_sets():
    """The date itself is asked for where files are dated, and between segments of a campaign."""
    asking = re.compile(r"\btime\.time\(|\bdatetime\.(utc)?now\(|\bfrom time import .*\btime\b")
    found = [path for path in (ROOT / "ecc").rglob("*.py") if asking.search(path.read_text())]
    names = sorted(path.relative_to(ROOT / "ecc").as_posix() for path in found)
    assert names == ["files.py", "measuring/campaign.py"]


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path):
    held = files.hold(tmp_path)
    with pytest.raises(UserError, match=r"another run is at work on .*: wait for it, or stop it"):
        files.hold(tmp_path)
    held.close()
    files.hold(tmp_path).close()


def test_a_killed_process_holds_a_folder_no_longer(tmp_path):
    program = f"import time; from ecc import files; held = files.hold({str(tmp_path)!r}); "
    program += "print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is at work"):
            files.hold(tmp_path)
        process.kill()
    files.hold(tmp_path).close()


def test_a_lock_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / files.LOCK).mkdir()
    with pytest.raises(UserError, match=r"\.run cannot be written"):
        files.hold(tmp_path)


def test_a_lock_is_no_result():
    assert files.is_beside(files.LOCK)


def test_a_disk_without_locks_holds_nothing(tmp_path, monkeypatch):
    def without_locks(file, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", without_locks)
    assert files.hold(tmp_path) is None
