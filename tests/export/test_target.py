"""Writing an exported file: what killed exports left goes, what others write stays."""

import fcntl

from pear_cli.export import target


def test_an_export_removes_what_killed_exports_left_and_no_file_that_is_being_written(tmp_path):
    stale, busy, foreign = (
        tmp_path / name
        for name in (".a.safetensors.0123abcd.new", ".b.safetensors.0123abcd.new", ".a.safetensors.new")
    )
    for path in (stale, busy, foreign):
        path.write_bytes(b"half")
    with busy.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        target.write(tmp_path / "a.safetensors", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.safetensors", busy, foreign])
    assert (tmp_path / "a.safetensors").read_bytes() == b"whole"
