"""Polynomials that make matrices orthogonal, and how they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from ...core.calls.kinds import Count, FloatDType, Kind, PositiveCount
from ...core.calls.options import Options
from ...core.numbers.values import is_array

_SAFETY = 1.01

# Minimax on [l, u], u = 2 - l, from l = 0.001 on, each for the interval that the one before it
# leaves; l is no less than 0.024 u to the minimax, so that small singular values are not all.
_POLAR_EXPRESS = (
    (8.287212018145622, -23.595886519098816, 17.30038731253092),
    (4.1070591115422, -2.9478499167379097, 0.5448431082926601),
    (3.9486908534822946, -2.9089021159629453, 0.5518191394370126),
    (3.318419657370602, -2.4884880243148753, 0.5100489401237204),
    (2.3006520199548177, -1.6689039845747502, 0.4188073119525673),
    (1.891301407787399, -1.2679958271945888, 0.3768040894852492),
    (1.8750014808507995, -1.2500016453946639, 0.37500016454478835),
)

COEFFICIENTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "keller": ((3.4445, -4.7750, 2.0315),),
    # Rounding may leave a singular value above u, where the polynomials grow.
    "polar_express": (
        *((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in _POLAR_EXPRESS),
        (15 / 8, -5 / 4, 3 / 8),
    ),
    "convergent": ((15 / 8, -5 / 4, 3 / 8),),
    "cubic": ((3 / 2, -1 / 2),),
}


def _are_coefficients(value: Any) -> bool:
    if isinstance(value, str):
        return value in COEFFICIENTS or value == "exact"
    return isinstance(value, Sequence) and bool(value) and all(map(_is_row, _rows(value)))


def _is_row(value: Any) -> bool:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return is_sequence and bool(value) and all(map(_is_number, value))


def _rows(coefficients: Sequence[Any]) -> list[Any]:
    return [coefficients] if all(map(_is_number, coefficients)) else list(coefficients)


Coefficients = Annotated[
    str | Sequence[Any],
    Kind(
        f"{', '.join(map(repr, COEFFICIENTS))}, 'exact' or the numbers (a, b, c) of "
        "a X + b (XX*) X + c (XX*)^2 X, or a sequence of such, one a step",
        _are_coefficients,
        text=True,
    ),
]


class Polar(Options):
    r"""How the polar factor $UV^*$ of a matrix $U \Sigma V^*$ is computed, or what is near it.

    By a composition of odd polynomials, one a step: $X \leftarrow a X + b (XX^*) X + c (XX^*)^2 X$
    (Newton-Schulz), which acts on the singular values, divided by the Frobenius norm first. So no
    decomposition is needed. With $\sigma$ such a quotient, the coefficients make of it

    - `"keller"`: a number in [0.68, 1.21] after 5 steps for $\sigma \ge 0.002$. It goes on moving
      there.
    - `"polar_express"`: in [0.84, 1.13] after 5 steps for $\sigma \ge 0.001$, $1 \pm 0.006$ after
      6, $1 \pm 10^{-5}$ after 7, and nowhere above these. Each step is best for what the steps
      before it leave.
    - `"convergent"`, $\frac18(15, -10, 3)$, and `"cubic"`, $\frac12(3, -1)$: below 1, and nearer
      to it with every step: $\sigma \ge 0.001$ is $1 \pm 10^{-6}$ after 15 and 22 steps.
    - `"exact"`: 1, by a singular value decomposition; directions that have none but for rounding
      stay 0. The steps do not matter.

    Smaller ones are less near to 1, by all but `"exact"`.

    Args:
        coefficients: one of these names, or the numbers $(a, b, c)$, or any other number of them,
            of all steps, or a sequence of such, one a step, the last for all that follow.
        steps: how many polynomials.
        dtype: in which to iterate; by default that of the updates, at least float32. In bfloat16
            it is fast, and right to 3 percent.
        batched: whether matrices of one shape, or of its transpose, from different arrays go
            through one call, so that programs do not grow with the number of layers. The call
            copies them, and holds four squares of the shorter side for each.
        batch_size: how many matrices go through one call at a time; all by default, and inside of
            :func:`dealt`, where `batched` is always so, as many as have 16 million numbers.

    References:
        Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks;
        Amsel et al. 2025, The Polar Express: Optimal Matrix Sign Methods and Their Application to
        the Muon Algorithm, arXiv:2505.16932;
        Björck & Bowie 1971, An Iterative Algorithm for Computing the Best Estimate of an
        Orthogonal Matrix.

    >>> import gdtx
    >>> gdtx.scale_by_muon(polar=gdtx.Polar("polar_express", steps=7)).arguments["polar"].steps
    7
    """

    coefficients: Coefficients = "keller"
    steps: Count = 5
    dtype: FloatDType | None = None
    batched: bool = True
    batch_size: PositiveCount | None = None

    def __post_init__(self) -> None:
        if not self.is_exact and len(self._rows) > self.steps:
            raise ValueError(
                f"Polar: coefficients are given for {len(self._rows)} steps, steps is {self.steps}"
            )

    @property
    def is_exact(self) -> bool:
        """Whether it is a decomposition."""
        return isinstance(self.coefficients, str) and self.coefficients == "exact"

    def polynomials(self) -> list[Any]:
        """The coefficients of each step: the last that are given serve all later steps."""
        return self._rows + self._rows[-1:] * (self.steps - len(self._rows))

    @property
    def _rows(self) -> list[Any]:
        if isinstance(self.coefficients, str):
            return list(COEFFICIENTS[self.coefficients][: self.steps])
        return _rows(self.coefficients)


def _is_number(value: Any) -> bool:
    return is_array(value) or (isinstance(value, int | float) and not isinstance(value, bool))
