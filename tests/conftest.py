"""How tests run: on eight simulated devices, compiled quickly, with little kept in memory.

Besides: float64 for those that ask, and which `diagonal` cases are quick.
"""

import os
from collections import Counter, defaultdict

# Before jax is imported: it reads the flags once.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Most of the time goes into compiling programs that run once. With 0 they are those of users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("KERAS_BACKEND", "jax")

import everything
import jax
import pytest

from gdtx.core.calls import recompiled

jax.config.update("jax_numpy_rank_promotion", "raise")


# Their programs are those of `tests/mutants/run.py`, and no tests.
collect_ignore = ["mutants"]


def pytest_configure(config):
    """Much of what a test compiles, another has compiled: programs are kept in pytest's cache."""
    if cache := getattr(config, "cache", None):
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_report_header(config):
    """Of all quick tests, which is what the README says to run."""
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_all and config.option.markexpr == "not slow":
        return "duration: about 7 minutes on two cores (with -n 2), in less than 3 GB a process"
    return None


def pytest_runtest_teardown(item, nextitem):
    """Compiled programs are half a megabyte each, and the next file has others.

    In jax 0.7 a process that forgets them may crash, in a callback of a weak reference.
    """
    if nextitem is not None and nextitem.path != item.path and jax.__version_info__ >= (0, 8):
        jax.clear_caches()


# About texts, pictures and pages, or numbers that hang on no version of JAX: CI runs these files on
# the newest only.
ONCE = {
    "test_arguments", "test_as_lenient_as_optax", "test_bad_inputs", "test_batch_size",
    "test_benchmarks", "test_checkpoint", "test_curvature_latex", "test_effective", "test_errors",
    "test_examples",
    "test_expand", "test_explore", "test_hints", "test_kfac_benchmark", "test_kfac_defaults",
    "test_landscape", "test_large_batch", "test_latex", "test_matrix_benchmark",
    "test_matrix_latex", "test_minimize", "test_more_schedules", "test_moving_from_keras",
    "test_moving_from_optax",
    "test_moving_programs", "test_noisy_quadratic", "test_notebook_trees", "test_notebook_views",
    "test_notebooks", "test_optax_names", "test_optax_signatures", "test_package", "test_pages",
    "test_paths", "test_readme", "test_reference_pages", "test_schedule_formulas",
    "test_schedules", "test_surface", "test_sweep_benchmarks", "test_trajectories",
    "test_which_page", "test_zero_and_one",
}  # fmt: skip

# Methods are expressions of makers, combinators and links, and what holds for these holds for them:
# CI tries their rows on the newest only, but for their numbers and what is in their states.
METHODS = {*everything.METHODS, *everything.KINDS["method"]}
NOT_BY_INDUCTION = {"test_buffers", "test_frameworks", "test_methods"}


def _is_of_a_method(item):
    values = getattr(item, "callspec", None) and item.callspec.params.values()
    return any(isinstance(value, str) and value in METHODS for value in values or ())


@pytest.hookimpl(tryfirst=True)  # before those marked slow are left out
def pytest_collection_modifyitems(items):
    """Of a test marked `diagonal` each value of each parameter is tried; what is off it is slow.

    The n-th value of the longest parameter goes with the n-th of each other, counted round. Of a
    test marked `first(n)`, so many cases are quick.
    """
    seen = Counter()
    for item in items:
        by_induction = item.path.stem not in NOT_BY_INDUCTION and _is_of_a_method(item)
        if item.path.stem in ONCE or by_induction:
            item.add_marker(pytest.mark.once)
        first = item.get_closest_marker("first")
        if first and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > first.args[0]:
                item.add_marker(pytest.mark.slow)
    tests = defaultdict(list)
    for item in items:
        if item.get_closest_marker("diagonal"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        values = defaultdict(dict)  # of each parameter, with their numbers
        for case in cases:
            for name, value in case.callspec.params.items():
                values[name].setdefault(id(value), len(values[name]))
        longest = max(values, key=lambda name: len(values[name]))
        for case in cases:
            at = {name: values[name][id(value)] for name, value in case.callspec.params.items()}
            if any(at[name] != at[longest] % len(values[name]) for name in values):
                case.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _constants_of_one_test():
    """Constants that different tests compile updates for are no loop to warn of."""
    recompiled._seen.clear()


@pytest.fixture
def x64():
    """Run the test with 64-bit types enabled."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def optimized():
    """Compile as users do, for a test of the last places of numbers."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
