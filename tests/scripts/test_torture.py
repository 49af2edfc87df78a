"""The script that tortures the store, in small: nothing is lost, and nothing is wrong."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "ci" / "torture.py"


def test_kills_full_disks_and_flipped_bits_leave_a_store_that_is_whole_and_right(tmp_path):
    words = [sys.executable, str(SCRIPT), "--kills", "10", "--flips", "20"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert (told["lost"], told["wrong"]) == ([], [])
    assert told["kills"] >= 10
    assert told["found"] == told["flips"] == 20
