"""Mistakes that somebody could make, put into a copy of the code one at a time: a test must fail.

Of each mutant the tables beside this file, one a room, tell why it is wrong, a piece of text that
is found once in `gdtx`, in whatever file, what stands there instead, and the tests that concern it.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    room: str
    name: str
    why: str
    old: str
    new: str
    tests: Sequence[str]

    def places(self, root: Path) -> list[Path]:
        """The files that have the old text, as often as they have it."""
        files = sorted((root / "gdtx").rglob("*.py"))
        return [path for path in files for _ in range(path.read_text().count(self.old))]

    def problems(self) -> Iterator[str]:
        """Why it cannot be made, or not be looked for."""
        found = self.places(ROOT)
        if len(found) != 1:
            where = ", ".join(str(path.relative_to(ROOT)) for path in found) or "nowhere"
            yield f"the old text must be there once, it is in {where}"
        for path in found[:1]:
            try:
                compile(path.read_text().replace(self.old, self.new), path, "exec")
            except SyntaxError as error:
                yield f"the new text cannot be read: {error}"
        for test in self.tests:
            file, _, function = test.partition("[")[0].partition("::")
            path = ROOT / "tests" / file
            if not path.exists() or f"def {function}" not in path.read_text():
                yield f"there is no test {test}"


def mutants(named: str = "") -> list[Mutant]:
    """All of all tables, or those with this in the name of their room or their own."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        table = tomllib.loads(path.read_text())
        found += [Mutant(path.stem, name, **fields) for name, fields in table.items()]
    return [mutant for mutant in found if named in f"{mutant.room}: {mutant.name}"]


def outcome(mutant: Mutant, copy: Path) -> str:
    """The suite and the test by which it is killed, or that it survives."""
    (path,) = mutant.places(copy)
    text = path.read_text()
    try:
        _write(path, text.replace(mutant.old, mutant.new))
        for suite, marker in (("quick", "not slow"), ("slow", "slow")):
            failed = first_failure(mutant.tests, copy, marker)
            if failed:
                return f"{suite}: {failed}"
        return "SURVIVES"
    finally:
        _write(path, text)


def first_failure(tests: Sequence[str], copy: Path, marker: str, processes: int = 0) -> str:
    """The first of the tests that fails; empty if all pass, or none has this mark."""
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-qx", "--tb=no", "-rfE", "-m", marker,
            "-n", str(processes), "-o", f"cache_dir={ROOT / '.pytest_cache' / 'mutants'}",
            *(f"tests/{test}" for test in tests),
        ],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    failed = [line.split()[1:] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if failed:
        return " ".join(failed[0]).partition(" - ")[0].removeprefix("tests/")
    if result.returncode not in (0, 5):  # 5: none was chosen
        raise RuntimeError(f"pytest did not run:\n{result.stdout}{result.stderr}")
    return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    # What is compiled may be of another text of the same size, written in the same second.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def outcomes(chosen: Sequence[Mutant], jobs: int) -> Iterator[str]:
    """What becomes of each, so many at a time, each in a copy of its own."""
    ignored = shutil.ignore_patterns(".*", "__pycache__")
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for i in range(jobs):
            copies.put(copy := shutil.copytree(ROOT, Path(directory, str(i)), ignore=ignored))
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        if failed := first_failure(tests, copy, "not slow", jobs):
            raise RuntimeError(f"without any mutant {failed} fails")

        def one(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                return outcome(mutant, copy)
            finally:
                copies.put(copy)

        yield from pool.map(one, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--only", default="", metavar="NAME", help="those of this name or room")
    parser.add_argument("--check", action="store_true", help="only see whether all can be made")
    arguments = parser.parse_args()
    chosen = mutants(arguments.only)
    problems = [f"{each.name}: {text}" for each in chosen for text in each.problems()]
    if problems or arguments.check:
        print(*problems, f"{len(chosen)} mutants, {len(problems)} problems", sep="\n")
        return int(bool(problems))
    print(f"{len(chosen)} mutants; first their tests without any", flush=True)
    start, suites = time.monotonic(), []
    for i, (mutant, result) in enumerate(
        zip(chosen, outcomes(chosen, arguments.jobs), strict=True), start=1
    ):
        suites.append(result.partition(":")[0])
        at = f"{i:3}/{len(chosen)} {time.monotonic() - start:5.0f} s"
        print(f"{at}  {mutant.room}: {mutant.name}: {result}", flush=True)
    quick, slow, survive = map(suites.count, ("quick", "slow", "SURVIVES"))
    print(f"killed by quick tests {quick}, by slow ones {slow}, survive {survive}")
    return int(survive > 0)


if __name__ == "__main__":
    sys.exit(main())
