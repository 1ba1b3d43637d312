"""Signatures of factories: their arguments bound, checked, and explained when they are wrong."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import Voice
from ..numbers.values import is_array
from .kinds import SCALAR, Kind, checked, kind_of

# Names of other libraries, and the arguments that they stand for.
_elsewhere = {
    "lr": ("learning_rate",),
    "betas": ("b1", "b2"),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "beta_1": ("b1",),
    "beta_2": ("b2",),
    "beta": ("decay", "momentum", "b1"),
    "alpha": ("decay", "momentum"),
    "rho": ("decay", "b1"),
    "epsilon": ("eps",),
    "mu": ("momentum", "decay"),
    "step_size": ("learning_rate", "factor"),
    "step_size_fn": ("schedule",),
    "weight_decay_mask": ("mask",),
    "trust_ratio_mask": ("trust_mask",),
    "accumulator_dtype": ("dtype",),
    "param_labels": ("labels",),
    "fast_optimizer": ("inner",),
    "base_optimizer": ("inner",),
    "wd": ("weight_decay",),
    "key": ("seed",),
    "rng": ("seed",),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("min_step_size", "max_step_size"),
    "update_every": ("every",),
    "block_size": ("size",),
    "root_dtype": ("dtype",),
    "basis_dtype": ("dtype",),
}

_scalar_kinds: dict[str, dict[Kind, None]] = {}


def scalar_kinds(name: str) -> list[Kind]:
    """What a scalar hyperparameter of this name may be, in one factory or another."""
    return list(_scalar_kinds.get(name, {SCALAR: None}))


class Signature:
    """A factory's parameters with their kinds; binds and checks the arguments of a call.

    `exact` says of a transformation whose state is to be kept as it is: True of all, or in which
    fields that is. `whole` says that it must see whole arrays, `leafwise` that it acts array by
    array if those given to it do.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        schedules: bool,
        voice: Voice = Voice.CLEAR,
        exact: bool | tuple[str, ...] = False,
        whole: bool = False,
        leafwise: bool = False,
    ):
        self.name = factory.__name__
        self.schedules = schedules
        self.voice = voice
        self.exact = exact
        self.whole = whole
        self.leafwise = leafwise
        try:
            self.signature = inspect.signature(factory, eval_str=True)
        except NameError:
            # Annotations that only a type checker can resolve carry no kinds.
            self.signature = inspect.signature(factory)
        self.parameters = self.signature.parameters
        self.kinds: dict[str, tuple[Kind | None, bool]] = {
            name: kind_of(parameter) for name, parameter in self.parameters.items()
        }
        for name, (kind, _) in self.kinds.items():
            if kind is not None and kind.scalar:
                _scalar_kinds.setdefault(name, {})[kind] = None
        self.defaults = {name: p.default for name, p in self.parameters.items()}
        self.required = [name for name, x in self.defaults.items() if x is inspect.Parameter.empty]
        in_order = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.positional = sum(p.kind in in_order for p in self.parameters.values())
        variadic = {p.kind: name for name, p in self.parameters.items()}
        self.varargs = variadic.get(inspect.Parameter.VAR_POSITIONAL)
        self.varkeywords = variadic.get(inspect.Parameter.VAR_KEYWORD)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name: defaults filled in, checked; `**` spread, `*` a tuple."""
        given = self._in_order(args, kwargs)
        if given is None:
            try:
                bound = self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(self._explain(kwargs, error)) from None
            bound.apply_defaults()
            given = bound.arguments
        arguments: dict[str, Any] = {}
        for name, value in given.items():
            if name == self.varargs:
                arguments[name] = tuple(
                    self._check(f"{name}[{i}]", item, name) for i, item in enumerate(value)
                )
            elif name == self.varkeywords:
                arguments |= {key: self._check(key, item, name) for key, item in value.items()}
            else:
                arguments[name] = self._check(name, value, name)
        return arguments

    def _in_order(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `inspect` would bind, in less time; None where there is an error or more to do."""
        if self.varargs is not None:
            return {self.varargs: args} if len(self.parameters) == 1 and not kwargs else None
        if len(args) > self.positional:
            return None
        if self.varkeywords is not None:
            if self.varkeywords in kwargs:
                return None
            known = {name: x for name, x in kwargs.items() if name in self.parameters}
            others = {name: x for name, x in kwargs.items() if name not in known}
            kwargs = {**known, self.varkeywords: others}
        first = dict(zip(self.parameters, args, strict=False))
        given = {**self.defaults, **first, **kwargs}
        is_wrong = len(given) > len(self.defaults) or not first.keys().isdisjoint(kwargs)
        if is_wrong or any(given[name] is inspect.Parameter.empty for name in self.required):
            return None
        return given

    def unbind(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments that :meth:`bind` takes apart."""
        kwargs = dict(arguments)
        if self.varargs is None:
            return (), kwargs
        names = list(self.parameters)
        leading = [kwargs.pop(name) for name in names[: names.index(self.varargs)]]
        return (*leading, *kwargs.pop(self.varargs)), kwargs

    def scheduled(self, arguments: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
        """The scalar hyperparameters that were given as functions of the step."""
        return {
            name: value
            for name, value in arguments.items()
            if self.is_scalar(name) and callable(value) and not is_array(value)
        }

    def is_scalar(self, name: str) -> bool:
        """Whether this argument is a scalar hyperparameter."""
        return (kind := self.kind(name)) is not None and kind.scalar

    def kind(self, name: str) -> Kind | None:
        """The kind of an argument, if its annotation names one."""
        return self.kinds.get(name, (None, False))[0]

    def _check(self, label: str, value: Any, name: str) -> Any:
        kind, optional = self.kinds[name]
        return checked(f"{self.name}: {label}", value, kind, optional, self.schedules)

    def _explain(self, kwargs: Mapping[str, Any], error: TypeError) -> str:
        stars = {self.varargs: "*", self.varkeywords: "**"}
        if self.varargs is None:
            by_name = (p.name for p in self.parameters.values() if p.kind is p.KEYWORD_ONLY)
            stars[next(by_name, None)] = "*, "
        takes = ", ".join(stars.get(name, "") + name for name in self.parameters)
        takes = f"{self.name} takes ({takes})"
        for key in kwargs:
            if key not in self.parameters and self.varkeywords is None:
                return f"{self.name}: unknown argument {key!r}{self.suggestion(key)}; {takes}"
        return f"{self.name}: {error}; {takes}"

    def suggestion(self, key: str) -> str:
        likely = [name for name in _elsewhere.get(key, ()) if name in self.parameters]
        if key not in ("betas", "etas", "step_sizes"):
            likely = likely[:1]
        if not likely and (found := self._among_options(key)):
            return f", did you mean {found}?"
        likely = likely or difflib.get_close_matches(key, self.parameters, n=1)
        return f", did you mean {' and '.join(map(repr, likely))}?" if likely else ""

    def _among_options(self, key: str) -> str | None:
        """Where this name is an argument of what is given to an argument."""
        for name, parameter in self.parameters.items():
            options = getattr(parameter.default, "signature", None)
            for inner in (key, *_elsewhere.get(key, ())):
                if isinstance(options, Signature) and inner in options.parameters:
                    return f"{name + '.' + inner!r}, as in {name}={options.name}({inner}=...)"
        return None
