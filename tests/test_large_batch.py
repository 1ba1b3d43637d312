"""The benchmark of large batches runs, and its verdict is that of its first table."""

import re

import pytest
from programs import refused
from test_sweep_benchmarks import FOLDER, below_rule, printed, run


@pytest.mark.slow  # sixteen programs to compile
def test_large_batch():
    lines = printed(run("large_batch.py", "--smoke"))
    rows = [re.split(r"\s{2,}", row) for row in below_rule(lines)]
    assert [row[0] for row in rows] == ["sgd, linear", "lars, linear", "adam, root", "lamb, root"]
    verdict = "\n".join(lines)
    for name, *cells in rows:
        shares, rates = zip(
            *(map(float, re.fullmatch(r"(.+)% at (.+)", cell).groups()) for cell in cells),
            strict=True,
        )
        growth = 10 if "linear" in name else 10**0.5
        assert abs(rates[1] / rates[0] / growth - 1) < 0.05
        kept = 500 if shares[1] >= shares[0] - 2 else 50
        assert (
            f"{name.split(',')[0]} keeps its accuracy within 2% up to batches of {kept}" in verdict
        )


def test_bad_arguments():
    code, said = refused(FOLDER / "large_batch.py", "--epochs", "0")
    assert code == 2
    assert "--epochs must be positive, got 0" in said
