"""The table of every transformation has every transformation."""

import inspect

from every import EVERY

import gdtx
from gdtx import interop, kfac


def test_every_public_factory_has_a_row():
    made = "GradientTransformation"
    factories = {
        name
        for home in (gdtx, kfac, interop)
        for name, value in vars(home).items()
        if hasattr(value, "__gdtx_signature__")
        and inspect.signature(value).return_annotation == made
    }
    assert len(factories) > 100
    assert factories - EVERY.keys() == set()
