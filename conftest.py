"""Doctests run where their function is defined, and not in `gdtx`, where it says that it is."""

import doctest
import inspect
import re

_by_module = doctest.DocTestFinder._from_module


def _by_definition(self, module, value):
    """Whether the line that defines a function or class is in this module."""
    name = getattr(value, "__name__", None)
    if name is None or vars(module).get(name) is not value:
        return _by_module(self, module, value)
    return bool(re.search(rf"^(def|class) {name}\b", inspect.getsource(module), re.MULTILINE))


doctest.DocTestFinder._from_module = _by_definition
