"""How many pairs of a property and a maker, combinator or link the quick tests try.

python tests/coverage_of_table.py
"""

import contextlib
import io
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


class Pairs:
    """What pytest would run, as the test functions and the rows that are parameters of them."""

    def pytest_collection_finish(self, session):
        from everything import KINDS

        rows = KINDS["maker"] | KINDS["combinator"] | KINDS["link"]
        self.found = {
            (item.nodeid.partition("[")[0], value)
            for item in session.items
            for value in (item.callspec.params if hasattr(item, "callspec") else {}).values()
            if isinstance(value, str) and value in rows
        }


def main():
    pairs = Pairs()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-qq", str(TESTS)], plugins=[pairs])
    tests = {test for test, _ in pairs.found}
    rows = {row for _, row in pairs.found}
    print(f"{len(pairs.found)} pairs of {len(tests)} tests and {len(rows)} rows")


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main()
