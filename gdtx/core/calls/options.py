"""Options: arguments that belong together, as one."""

from __future__ import annotations

import inspect
from typing import Any, Self, dataclass_transform

import jax

from .call import Call
from .kinds import Kind, register_kind
from .signature import Signature


@dataclass_transform(frozen_default=True)
class Options(Call):
    """Arguments of transformations that belong together, given as one.

    A subclass names them with their kinds and defaults, as a dataclass does. An instance is data
    like the transformation it is given to: it is checked when it is made, prints as the call,
    compares, hashes, pickles, and has the arrays among its values as leaves.

    >>> import gdtx
    >>> class Clipping(gdtx.Options):
    ...     low: float = -1.0
    ...     high: float = 1.0
    >>> Clipping(high=2.0), Clipping(high=2.0).high
    (Clipping(low=-1.0, high=2.0), 2.0)
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        inherited = getattr(cls, "__signature__", inspect.Signature())
        parameters = dict(inherited.parameters)
        for name, annotation in inspect.get_annotations(cls, eval_str=True).items():
            parameters[name] = inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=cls.__dict__.get(name, inspect.Parameter.empty),
                annotation=annotation,
            )
            setattr(cls, name, property(lambda self, name=name: self.arguments[name]))
        cls.__signature__ = inspect.Signature(list(parameters.values()))
        cls.__gdtx_signature__ = Signature(cls, schedules=False)
        jax.tree_util.register_pytree_with_keys_class(cls)
        register_kind(cls, Kind(f"{cls.__name__}(...)", lambda value: isinstance(value, cls)))

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        options = cls.of(cls, cls.__gdtx_signature__.bind(args, kwargs))
        options.__post_init__()
        return options

    def __post_init__(self) -> None:
        """Raise if the values do not fit each other."""
