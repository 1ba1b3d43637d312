"""Whether two versions of gdtx compile to the same programs and compute the same numbers.

    PYTHONPATH=OLD python benchmarks/programs.py --write old.json      a minute or two
    PYTHONPATH=NEW python benchmarks/programs.py --write new.json
    python benchmarks/programs.py --compare old.json new.json          tells every difference

OLD and NEW are checkouts; each brings its own table of transformations, `tests/everything.py`
(before it `tests/methods.py` and `tests/every.py`), and rows of one name are compared: how they
print, the tree, shapes and dtypes of the first state, operations, bytes, aliases and outputs of
the compiled update with its state donated, and every bit of updates and states after each of three
steps on a small tree. Both must be written on one machine with one jax: compilers round in their
own ways.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gdtx

STEPS = 3


def rows(pattern: str) -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Name, transformation, parameters and extra arguments of every row of both tables."""
    tests = Path(gdtx.__file__).parents[1] / "tests"
    sys.path.insert(0, str(tests))
    name = next(name for name in ("everything", "every") if (tests / f"{name}.py").exists())
    table = importlib.import_module(name)
    methods = (table if name == "everything" else importlib.import_module("methods")).METHODS
    every = table.EVERY.items()
    named = {f"method {name}": row.make(row.learning_rate) for name, row in methods.items()}
    for name, tx in (*every, *named.items()):
        if re.search(pattern, name):
            yield name, tx, table.PARAMS, table.extras(name, table.PARAMS)


def facts(tx: Any, params: Any, extras: dict[str, Any]) -> dict[str, Any]:
    """What is compared of one transformation."""
    functions = {name: value for name, value in extras.items() if callable(value)}
    arrays = {name: value for name, value in extras.items() if name not in functions}

    def step(updates: Any, state: Any, params: Any, arrays: Any) -> Any:
        return tx.update(updates, state, params, **arrays, **functions)

    state = tx.init(params)
    lowered = jax.jit(step, donate_argnums=1).lower(params, state, params, arrays)
    compiled = lowered.compile()
    found = {
        "repr": without_addresses(repr(tx)),
        "state": str(jax.tree.structure(state)),
        "arrays of the state": [described(x) for x in jax.tree.leaves(state)],
        "outputs": [described(x) for x in jax.tree.leaves(lowered.out_info)],
        **costs(compiled),
    }
    for i in range(STEPS):
        gradients = jax.tree.map(lambda p, i=i: jnp.asarray(np.sin(3 * p + i), p.dtype), params)
        updates, state = compiled(gradients, state, params, arrays)
        found[f"numbers of step {i + 1}"] = digest((updates, state))
    return found


def costs(compiled: Any) -> dict[str, Any]:
    analysis = compiled.cost_analysis()
    # In the head of the module: {output}: (argument, ...), ...
    head = compiled.as_text().split("\n", 1)[0]
    aliases = re.search(r"input_output_alias=\{(.*?)\}, \w+=", head)
    return {
        "flops": analysis.get("flops", 0.0),
        "bytes accessed": analysis.get("bytes accessed", 0.0),
        "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
        "aliases": aliases.group(1) if aliases else "",
    }


def described(x: Any) -> str:
    weak = " weak" if getattr(x, "weak_type", False) else ""
    return f"{jnp.dtype(x.dtype).name}{list(x.shape)}{weak}"


def digest(tree: Any) -> str:
    """Of every bit of the arrays in a tree."""
    found = hashlib.sha256()
    for x in jax.tree.leaves(tree):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        found.update(np.asarray(jax.random.key_data(x) if is_key else x).tobytes())
    return found.hexdigest()[:16]


def without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def write(path: Path, pattern: str) -> None:
    found: dict[str, Any] = {}
    for name, tx, params, extras in rows(pattern):
        try:
            found[name] = facts(tx, params, extras)
        except Exception:  # one row that does not run should not hide the others
            traceback.print_exc()
            found[name] = {"error": traceback.format_exc().splitlines()[-1]}
    path.write_text(json.dumps(found, indent=1, sort_keys=True))
    failed = [name for name, each in found.items() if "error" in each]
    print(f"{len(found)} programs of gdtx at {Path(gdtx.__file__).parents[1]}; failed: {failed}")


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print the differences; their number."""
    differences = [
        f"{name}: {what}\n  old: {old[name].get(what)}\n  new: {new[name].get(what)}"
        for name in sorted(old.keys() & new.keys())
        for what in sorted(old[name].keys() | new[name].keys())
        if old[name].get(what) != new[name].get(what)
    ]
    alone = {"old": sorted(old.keys() - new.keys()), "new": sorted(new.keys() - old.keys())}
    print(*differences, sep="\n")
    print(f"{len(old.keys() & new.keys())} compared, {len(differences)} differences")
    print(*(f"only in {which}: {', '.join(names) or 'none'}" for which, names in alone.items()),
          sep="\n")  # fmt: skip
    return len(differences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows of such names")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"))
    asked = parser.parse_args()
    if asked.write:
        write(asked.write, asked.rows)
    if asked.compare:
        old, new = (json.loads(path.read_text()) for path in asked.compare)
        sys.exit(bool(compare(old, new)))


if __name__ == "__main__":
    main()
