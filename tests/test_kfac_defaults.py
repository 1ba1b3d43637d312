"""The benchmark of K-FAC's defaults runs, and its table has a loss for each setting."""

import pytest
from programs import refused
from test_sweep_benchmarks import FOLDER, printed, run


@pytest.mark.slow  # three programs to compile
def test_kfac_defaults():
    lines = printed(run("kfac_defaults.py", "--smoke"))
    header = next(i for i, line in enumerate(lines) if line.startswith("K-FAC"))
    rates = lines[header].split()[-2:]
    assert rates == ["0.1", "0.3"]
    for line, output in zip(lines[header + 2 :], ("sampled", "exact"), strict=False):
        assert line.startswith(f"{output}, damping 0.001")
        assert all(0 < float(loss) < 3 for loss in line.split()[-2:])
    assert len(lines[-1].split()) == 2


def test_bad_arguments():
    code, said = refused(FOLDER / "kfac_defaults.py", "--steps", "30")
    assert code == 2
    assert "--steps must be a multiple of 20, got 30" in said
