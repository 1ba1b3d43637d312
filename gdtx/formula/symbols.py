"""The letters that papers use for hyperparameters and for what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..links.moments import ema, running_max, running_sum, trace, variance
from ..links.noise import add_noise
from ..methods.kfac import levenberg_marquardt
from ..methods.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from .expression import Symbol

_SYMBOLS = {
    "learning_rate": Symbol(r"\eta"),
    "b1": Symbol(r"\beta", "1"),
    "b2": Symbol(r"\beta", "2"),
    "decay": Symbol(r"\beta"),
    "momentum": Symbol(r"\mu"),
    "b3": Symbol(r"\beta", "3"),
    "eps": Symbol(r"\epsilon"),
    "eps_root": Symbol(r"\epsilon", r"\mathrm{root}"),
    "weight_decay": Symbol(r"\lambda"),
    "momentum_decay": Symbol(r"\psi"),
    "eta_minus": Symbol(r"\eta", above="-"),
    "eta_plus": Symbol(r"\eta", above="+"),
    "min_step_size": Symbol(r"\Delta", r"\min"),
    "max_step_size": Symbol(r"\Delta", r"\max"),
    "decay_rate": Symbol("c"),
    "clipping_threshold": Symbol(r"\tau"),
    "ahead": Symbol(r"\alpha"),
    "max_delta": Symbol(r"\delta"),
    "max_learning_rate": Symbol(r"\gamma", r"\max"),
    "f_min": Symbol("f", above="*"),
    "sync_period": Symbol("k"),
    "slow_step_size": Symbol(r"\alpha"),
    "max_norm": Symbol("c"),
    "norm_constraint": Symbol("c"),
    "damping": Symbol(r"\lambda"),
    "inverse_every": Symbol("T"),
    "trust_coefficient": Symbol("c"),
    "factor": Symbol("c"),
    "constant": Symbol("c"),
}
_OTHERWISE: dict[tuple[Callable[..., Any], str], Symbol] = {
    (trace, "decay"): Symbol(r"\mu"),
    (levenberg_marquardt, "every"): Symbol("k"),
    (levenberg_marquardt, "damping"): Symbol(r"\lambda", "0"),
    (levenberg_marquardt, "min_damping"): Symbol(r"\lambda", r"\min"),
    (levenberg_marquardt, "max_damping"): Symbol(r"\lambda", r"\max"),
    # In the paper as plain as the learning rate, which it may stand beside.
    (add_noise, "eta"): Symbol(r"\eta", r"\xi"),
    **{(factory, "decay"): Symbol(r"\rho")
       for factory in (variance, scale_by_rms, scale_by_stddev, rmsprop)},
}  # fmt: skip
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi",
    "omega",
}  # fmt: skip

# Numbers in a formula more than parameters of it.
_PLAIN = {
    "factor", "constant", "threshold", "initial", "initial_scale", "initial_accumulator_value",
    "weight_lr_power", "initial_mean", "min_scale",
}  # fmt: skip
_NOTHING = {
    ("decay", 1), ("trust_coefficient", 1), ("inverse_every", 1), ("eps", 0), ("eps_root", 0),
}  # fmt: skip
_BY_BRANCH = {
    "mu": ("m", "1"), "mean": ("m", "1"), "nu": ("v", "2"), "past": ("d", ""),
    "row": ("r", ""), "col": ("c", ""), "left": ("L", "2"), "right": ("R", "2"),
    "A": ("A", ""), "S": ("S", ""),
}  # fmt: skip


def word(text: str) -> Symbol:
    """A symbol that is a word."""
    return Symbol(rf"\mathrm{{{escaped(text)}}}")


def escaped(text: str) -> str:
    """Text as LaTeX reads it."""
    for special in "_{}#%&$":
        text = text.replace(special, "\\" + special)
    return text


def is_plain(name: str, value: float | None = None) -> bool:
    """Whether a hyperparameter's number is shown as it is; a decay of 1 decays nothing, a trust
    coefficient of 1 changes nothing, every 1 steps is always, and an epsilon of 0 is none."""
    return name in _PLAIN or (name, value) in _NOTHING


def hyperparameter(factory: Any, name: str, branches: Sequence[str]) -> tuple[Symbol, ...]:
    """Symbols for an argument of a factory, the best first."""
    letter = rf"\{name}" if name in _GREEK else name if len(name) == 1 else None
    named = Symbol(letter) if letter else word(name)
    usual = _OTHERWISE.get((factory, name), _SYMBOLS.get(name, named))
    if name == "decay" and usual == _SYMBOLS["decay"]:
        _, number = _of_branch(branches)
        return (Symbol(usual.letter, number), usual)
    return (usual,)


def letters(factory: Any, branches: Sequence[str], is_square: bool) -> tuple[str, ...]:
    """Letters for what a link remembers, the best first."""
    if factory is ema:
        letter, _ = _of_branch(branches)
        return (letter or ("v" if is_square else "m"), "v" if is_square else "m")
    letter, _ = _of_branch(branches)
    if letter in ("L", "R"):
        return (letter,)
    return {trace: ("v", "b"), running_sum: ("s",), running_max: ("a",)}.get(factory, ("a",))


def _of_branch(branches: Sequence[str]) -> tuple[str, str]:
    return next((_BY_BRANCH[name] for name in reversed(branches) if name in _BY_BRANCH), ("", ""))
