"""Methods by their names."""

from __future__ import annotations

import difflib
from typing import Any

from ..core.transformation import GradientTransformation
from . import methods
from .contents import names


def get(name: str, *args: Any, **kwargs: Any) -> GradientTransformation:
    """A method by its name, as a file of settings has it.

    Args:
        name: of a public method, one of :func:`list_methods`.
        *args, **kwargs: what the method takes.

    Returns:
        What the method of this name returns: `get("adam", 0.1)` is `adam(0.1)`.

    Raises:
        TypeError: if `name` is no string, or the method does not take these arguments.
        ValueError: if no method has that name; the message says which are like it.

    >>> import gdtx
    >>> settings = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}
    >>> gdtx.get(**settings) == gdtx.sgd(0.1, momentum=0.9)
    True
    """
    known = list_methods()
    if not isinstance(name, str):
        raise TypeError(f"get: name must be a string, such as 'adam', got {name!r}")
    if name not in known:
        likely = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {likely[0]!r}" if likely else ""
        raise ValueError(f"get: no method is called {name!r}{hint}; there are {', '.join(known)}")
    return getattr(methods, name)(*args, **kwargs)


def list_methods() -> list[str]:
    """The names of all methods, for :func:`get`.

    >>> import gdtx
    >>> gdtx.list_methods()[:3]
    ['adabelief', 'adadelta', 'adafactor']
    """
    return sorted(names(methods))
