"""L-BFGS of gdtx, Optax, jaxopt and SciPy: steps and evaluations to a minimum, in float64.

    python benchmarks/lbfgs.py
    python benchmarks/lbfgs.py --tolerance 1e-9
    python benchmarks/lbfgs.py --json lbfgs.json    the same numbers, to a file
    python benchmarks/lbfgs.py --smoke              three problems, to see that it runs

Each begins at the usual start and is done when no number of the gradient is larger than the
tolerance; all keep ten pairs and have line searches of at most twenty evaluations, as by default in
gdtx and Optax. Columns are the steps and, behind the slash, the evaluations of value and gradient,
with the one at the start. "-" stands for a search that did not come so far in 2000 steps, a star
for a point whose value is not among the least that are known.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import scipy.optimize
from tqdm import tqdm
from unconstrained import PROBLEMS, Problem

import gdtx

MOST = 2000


class Found(NamedTuple):
    """Where a search ended."""

    value: float
    gradient: float
    steps: int
    evaluations: int


@partial(jax.jit, static_argnames=("library", "f", "tolerance"))
def descended(library: Any, f: Any, x: Any, tolerance: float) -> Any:
    """The loop of Optax's documentation, which is that of gdtx too."""
    tx = library.lbfgs()
    value_and_grad = library.value_and_grad_from_state(f)

    def goes_on(carry: Any) -> Any:
        *_, largest, steps, _ = carry
        return ~(largest <= tolerance) & (steps < MOST)

    def step(carry: Any) -> Any:
        x, state, _, steps, evaluations = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        tried = optax.tree.get(state, "num_linesearch_steps")
        largest = jnp.max(jnp.abs(optax.tree.get(state, "grad")))
        return x + updates, state, largest, steps + 1, evaluations + tried

    x, _, largest, steps, evaluations = jax.lax.while_loop(
        goes_on, step, (x, tx.init(x), jnp.max(jnp.abs(jax.grad(f)(x))), 0, 1)
    )
    return f(x), largest, steps, evaluations


@partial(jax.jit, static_argnames=("f", "tolerance"))
def by_jaxopt(f: Any, x: Any, tolerance: float) -> Any:
    """Its own loop stops by another norm."""
    solver = jaxopt.LBFGS(f, history_size=10, linesearch="zoom", maxls=20)

    def largest(state: Any) -> Any:
        return jnp.max(jnp.abs(state.grad))

    def goes_on(carry: Any) -> Any:
        _, state = carry
        return ~(largest(state) <= tolerance) & (state.iter_num < MOST)

    x, state = jax.lax.while_loop(
        goes_on, lambda carry: tuple(solver.update(*carry)), (x, solver.init_state(x))
    )
    return f(x), largest(state), state.iter_num, state.num_fun_eval


def by_scipy(f: Any, x: Any, tolerance: float) -> Any:
    done = scipy.optimize.minimize(
        jax.jit(jax.value_and_grad(f)), np.asarray(x), jac=True, method="L-BFGS-B",
        options={"maxcor": 10, "ftol": 0, "gtol": tolerance, "maxiter": MOST, "maxfun": 20 * MOST},
    )  # fmt: skip
    return done.fun, np.max(np.abs(done.jac)), done.nit, done.nfev


SOLVERS = {
    "gdtx": partial(descended, gdtx),
    "Optax": partial(descended, optax),
    "jaxopt": by_jaxopt,
    "SciPy": by_scipy,
}


def solved(problem: Problem, tolerance: float) -> dict[str, Found]:
    start = jnp.array(problem.start)
    found = {name: solve(problem.fun, start, tolerance) for name, solve in SOLVERS.items()}
    return {
        name: Found(float(value), float(gradient), int(steps), int(evaluations))
        for name, (value, gradient, steps, evaluations) in found.items()
    }


def is_known(problem: Problem, value: float) -> bool:
    """Known values have six digits; those that are 0 are so to the tolerance of the gradient."""
    return any(abs(value - least) <= 1e-5 * abs(least) + 1e-8 for least in problem.least)


def cell(problem: Problem, found: Found, tolerance: float) -> str:
    if not found.gradient <= tolerance:
        return "-"
    star = "" if is_known(problem, found.value) else "*"
    return f"{star}{found.steps}/{found.evaluations}"


def lines(results: dict[Problem, dict[str, Found]], tolerance: float) -> list[str]:
    header = f"{'problem':22}{'n':>3}" + "".join(f"{name:>12}" for name in SOLVERS)
    rows = [
        f"{p.name:22}{len(p.start):3}"
        + "".join(f"{cell(p, each, tolerance):>12}" for each in found.values())
        for p, found in results.items()
    ]
    reached = [
        found for found in results.values()
        if all(each.gradient <= tolerance for each in found.values())
    ]  # fmt: skip
    totals = [
        f"{sum(each[name].steps for each in reached)}/"
        f"{sum(each[name].evaluations for each in reached)}"
        for name in SOLVERS
    ]
    last = f"{'all, where all came':22}{len(reached):3}" + "".join(f"{x:>12}" for x in totals)
    return [header, "-" * len(header), *rows, "", last]


def main() -> None:
    """Solve all and print."""
    parser = argparse.ArgumentParser(description="L-BFGS beside that of others.")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of the gradient's numbers")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--smoke", action="store_true", help="three problems")
    args = parser.parse_args()
    if not 0 < args.tolerance < 1:
        parser.error(f"--tolerance must be in (0, 1), got {args.tolerance}")
    jax.config.update("jax_enable_x64", True)
    problems = PROBLEMS[2:5] if args.smoke else PROBLEMS
    versions = {name: version(name) for name in ("gdtx", "jax", "optax", "jaxopt", "scipy")}
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"float64, no number of the gradient above {args.tolerance:g}; steps/evaluations")
    results = {problem: solved(problem, args.tolerance) for problem in tqdm(problems)}
    print("\n".join(lines(results, args.tolerance)))
    if args.json:
        numbers = {
            problem.name: {name: each._asdict() for name, each in found.items()}
            for problem, found in results.items()
        }
        setting = versions | {"tolerance": args.tolerance}
        args.json.write_text(json.dumps({"setting": setting, "problems": numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
