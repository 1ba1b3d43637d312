"""The sweep benchmark runs, and its ways of sweeping agree before they are timed."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "sweep.py"


def test_smoke():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--smoke"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("gdtx.", "optax "))]
    assert len(rows) == 6
    assert all(float(row.split()[-1]) < 1e-3 for row in rows), "relative error of the losses"
