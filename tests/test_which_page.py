"""The page that says which method to take: of every method, a call that can be made."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import gdtx
from gdtx.public import methods

FOLDER = Path(__file__).parents[1]
PAGE = (FOLDER / "docs" / "which.md").read_text(encoding="utf-8")
FOUND = re.findall(r"^\| \{any\}`(.+?) <gdtx\.(\S+)>` \|", PAGE, re.MULTILINE)
ROWS = {name: call for call, name in FOUND}
OTHERS = {"full_matrix_adagrad", "kfac.kfac", "kfac.natural_gradient"}


def test_every_method_has_a_row():
    public = {name for name in vars(methods) if not name.startswith("_")}
    assert set(ROWS) == public | OTHERS
    assert public <= set(gdtx.__all__)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_begins_with_a_call_of_its_method(name):
    tx = eval(ROWS[name], vars(gdtx).copy())
    assert f"gdtx.{name}".endswith(f".{tx.factory.__name__}")
    params = {"layer": {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}}
    jax.eval_shape(tx.init, params)


def test_rates_that_the_digits_found_are_those_of_the_example():
    listed = re.findall(r"^\| `([^`]+)` \| (?:0\.\d{4}|not swept)", PAGE, re.MULTILINE)
    text = (FOLDER / "examples" / "digits.py").read_text(encoding="utf-8")
    trained = re.findall(r"^        (?:gdtx|kfac)\.(\w+\(.*\)),(?:  #.*)?$", text, re.MULTILINE)
    assert listed == [call.replace("gdtx.", "") for call in trained]
