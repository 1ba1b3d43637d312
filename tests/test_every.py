"""The table has every transformation, once, and each under its own name."""

from everything import EVERY, KINDS

import gdtx
from gdtx import interop, kfac


def test_every_public_factory_has_a_row_and_every_row_a_factory():
    public = {
        name: value.__gdtx_signature__
        for home in (gdtx, kfac, interop)
        for name, value in vars(home).items()
        if hasattr(value, "__gdtx_signature__")
    }
    made = {name for name, signature in public.items() if signature.schedules}
    assert len(made) > 100
    assert made - {"transformation"} == set(EVERY)
    assert len(EVERY) == sum(map(len, KINDS.values()))


def test_rows_are_of_the_factory_that_they_name():
    """Or have it in an argument, as what is for matrices stands in `masked`."""
    for name, tx in EVERY.items():
        assert f"{name}(" in repr(tx), name
