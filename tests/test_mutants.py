"""The mistakes in `tests/mutants`, which every night are made one at a time, can all be made."""

import subprocess
import sys
from pathlib import Path


def test_every_mutant_can_be_made():
    run = Path(__file__).parent / "mutants" / "run.py"
    result = subprocess.run([sys.executable, run, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
