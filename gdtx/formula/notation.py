"""The letters that papers use for hyperparameters and for what is remembered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .expression import Symbol

PI = Symbol(r"\pi")


class Letters(NamedTuple):
    """What a link calls its hyperparameters, and what it remembers."""

    names: dict[str, Symbol]
    memory: str
    squares: str


_stated: dict[Any, Letters] = {}
_by_name: dict[str, Symbol] = {}
_plain: set[str] = set()

_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi",
    "omega",
}  # fmt: skip
_NOTHING = {
    ("decay", 1), ("trust_coefficient", 1), ("inverse_every", 1), ("eps", 0), ("eps_root", 0),
}  # fmt: skip
_BY_BRANCH = {
    "mu": ("m", "1"), "mean": ("m", "1"), "nu": ("v", "2"), "past": ("d", ""),
    "row": ("r", ""), "col": ("c", ""), "left": ("L", "2"), "right": ("R", "2"),
    "A": ("A", ""), "S": ("S", ""), "h": ("h", ""),
}  # fmt: skip


def letters(
    factory: Any, memory: str = "", squares: str = "", plain: str = "", **names: str
) -> None:
    r"""State what a transformation calls its hyperparameters, and what it remembers.

    Args:
        factory: the transformation. Others take its letters for their arguments of the same names,
            if they state none.
        memory: letters for what it remembers, the best first.
        squares: what that is called of squares. With it, the branch of a join that it stands in
            decides first, as it does for the moments of Adam.
        plain: hyperparameters that are numbers in a formula more than parameters of it.
        **names: by hyperparameter its letter, as its docstring writes it: `decay=r"\mu"`.
    """
    symbols = {name: symbol(text) for name, text in names.items()}
    _plain.update(plain.split())
    _stated[factory] = Letters(symbols, memory, squares)
    for name, stated in symbols.items():
        _by_name.setdefault(name, stated)


def symbol(text: str) -> Symbol:
    r"""A letter as LaTeX writes it: `\beta_1`, `\Delta_{min}`, `f^*`."""
    parts = re.fullmatch(r"(\\?[A-Za-z]+)(?:_\{?(\\?\w+)\}?)?(?:\^\{?(.+?)\}?)?", text)
    assert parts, text
    letter, below, above = (part or "" for part in parts.groups())
    if below in ("min", "max"):
        below = rf"\{below}"
    elif below.isalpha() and len(below) > 1:
        below = rf"\mathrm{{{below}}}"
    return Symbol(letter, below, above)


_USUAL = {
    "learning_rate": r"\eta", "b1": r"\beta_1", "b2": r"\beta_2", "b3": r"\beta_3",
    "decay": r"\beta", "momentum": r"\mu", "eps": r"\epsilon", "eps_root": r"\epsilon_{root}",
    "weight_decay": r"\lambda", "damping": r"\lambda",
}  # fmt: skip
_by_name.update({name: symbol(text) for name, text in _USUAL.items()})


def word(text: str) -> Symbol:
    """A symbol that is a word."""
    return Symbol(rf"\mathrm{{{escaped(text)}}}")


def escaped(text: str) -> str:
    """Text as LaTeX reads it."""
    for special in "_{}#%&$":
        text = text.replace(special, "\\" + special)
    return text


def is_plain(name: str, value: float | None = None) -> bool:
    """Whether a hyperparameter's number is shown as it is: as that of one that changes nothing, a
    decay of 1 or an epsilon of 0."""
    return name in _plain or (name, value) in _NOTHING


def hyperparameter(factory: Any, name: str, branches: Sequence[str] = ()) -> tuple[Symbol, ...]:
    """Symbols for an argument of a factory, the best first."""
    stated = _letter(factory, name)
    if name == "decay" and stated == _by_name["decay"]:
        _, number = _of_branch(branches)
        return (Symbol(stated.letter, number), stated)
    return (stated,)


def _letter(factory: Any, name: str) -> Symbol:
    for names in (_stated[factory].names if factory in _stated else {}, _by_name):
        if name in names:
            return names[name]
    return Symbol(rf"\{name}") if name in _GREEK else Symbol(name) if len(name) == 1 else word(name)


def remembered(factory: Any, branches: Sequence[str], is_square: bool) -> tuple[str, ...]:
    """Letters for what a link remembers, the best first."""
    letter, _ = _of_branch(branches)
    _, memory, squares = _stated.get(factory, Letters({}, "", ""))
    if squares:
        own = squares if is_square else memory
        return (letter or own, own)
    return (letter,) if letter in ("L", "R") else tuple(memory or "a")


def _of_branch(branches: Sequence[str]) -> tuple[str, str]:
    return next((_BY_BRANCH[name] for name in reversed(branches) if name in _BY_BRANCH), ("", ""))
