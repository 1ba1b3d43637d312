"""The lecture's claims, and how a cell of a notebook says what became of one."""

from __future__ import annotations

from html import escape
from typing import Any

HOLDS = "holds"
CORRECTED = "holds with a correction"
FAILS = "does not hold here"

# Each a mark, and the colour of the line beside it, on white and on a dark page.
SHOWN = {HOLDS: ("✓", "#1b8a5a"), CORRECTED: ("≈", "#c26a00"), FAILS: ("✗", "#d6423b")}

MIME_TYPE = "application/vnd.gdtx.claim+json"

CLAIMS = {
    1: "a mini-batch gradient is a stochastic estimate of the true one",
    2: "η must decay for convergence",
    3: "the ideal decay for SGD is O(1/t), but it works less well in practice",
    4: "escaping saddle points is a main difficulty, and momentum helps",
    5: "Polyak's original form equals v ← μv − η∇L, θ ← θ + v",
    6: "momentum speeds descent where the gradient is consistent",
    7: "raising μ acts like raising η",
    8: "the valley: GD, GD with larger η, momentum; with momentum η can safely be larger",
    9: "momentum has better guarantees than SGD",
    10: "momentum decreases the variance of the gradient estimator",
    11: "momentum extends perfect scaling with batch size",
    12: "momentum lags behind the true direction and can settle slower",
    13: "the EMA form is equivalent with μ = η_t β and learning rate η_t(1 − β)",
    14: "an EMA approximates a simple moving average of 2/(1 − β) − 1 steps",
    15: "E[g_t] = (1 − β^t) E[∇L] when g_0 = 0",
    16: "Sutskever's form relates NAG to momentum",
    17: "NAG is superior to momentum in theory and practice",
    18: "ill-conditioning forces a low η for all directions",
    19: "gradient magnitude tells the curvature's steepness",
    20: "with B = Σ g gᵀ the regret bound is O(log T)",
    21: "the full G is too expensive to store and invert",
    22: "AdaGrad's update as printed",
    23: "AdaGrad's denominator grows too quickly and it stops too early",
    24: "AdaGrad works well with sparse gradients",
    25: "each component is scaled by the L2 norm of all past partials",
    26: "AdaDelta needs no η",
    27: "Newton's step has the right units; AdaDelta's ratio estimates the inverse curvature",
    28: "AdaDelta's update as printed",
    29: "RMS[x] = √E[x²] + ε",
    30: "RMSProp is Rprop for mini-batches; Rprop is descent on signs",
    31: "the centered variant slows down where the gradient is uncertain; it costs twice the "
    "memory",
    32: "it is not clear which of RMSProp's variants is better",
    33: "Adam is RMSProp with momentum and bias correction",
    34: "bias correction matters only early",
    35: "|Δθ| ≤ η min(1, (1 − β₁)/√(1 − β₂))",
    36: "m̂/√v̂ is not a true signal-to-noise ratio",
    37: "Adam still needs its learning rate decayed",
    38: "Adam's diagonal is far from the diagonal of the Fisher",
    39: "ε inside or outside of the root: both are printed",
    40: "AdaMax uses the infinity norm of past gradients",
    41: "NAdam is Adam with Nesterov momentum",
    42: "AMSGrad guards against an adversarial case",
    43: "high variance of the adaptive step early on causes divergence; warm-up prevents it",
    44: "ρ_∞ = 2/(1 − β₂) − 1, ρ_t = ρ_∞ − 2tβ₂^t/(1 − β₂^t)",
    45: "Var[ψ] ≈ ρ/(2(ρ − 2)(ρ − 4)σ²); the root's variance falls as O(1/ρ)",
    46: "the variance becomes tractable within 4 to 6 steps",
    47: "RAdam needs no warm-up and is robust to η",
    48: "raising ε from 1e-8 to 1e-4 almost removes the need for warm-up",
    49: "K-FAC approximates the natural gradient",
    50: "doubling the batch: double η, halve the steps",
    51: "LARS and LAMB keep that up for larger batches",
    52: "Shampoo is AdaGrad with a non-diagonal approximation of G",
    53: "SM3 is AdaGrad in sub-linear space",
    54: "the noisy quadratic model predicts training behaviour",
    55: "cyclical learning rates work; the range test finds their bounds",
    56: "super-convergence is reproducible",
}


class Outcome:
    """What a cell found of a claim; who executes the notebook reads it back from the output."""

    def __init__(self, number: int, figure: str, verdict: str, correction: str):
        self.data = {
            "number": number,
            "figure": figure,
            "verdict": verdict,
            "correction": correction,
        }
        self.text = f"{verdict}: {correction}" if correction else verdict

    def __repr__(self) -> str:
        number, figure = self.data["number"], self.data["figure"]
        return f"Claim {number}, {CLAIMS[number]}: {figure}. It {self.text}."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        number, figure = self.data["number"], self.data["figure"]
        verdict, correction = self.data["verdict"], self.data["correction"]
        mark, color = SHOWN[verdict]
        shown = f"> **Claim {number}**: {CLAIMS[number]}. *{figure}.* **It {self.text}.**"
        as_html = (
            f'<div style="border-left: 4px solid {color}; padding: 0.1em 0 0.1em 1em">'
            f"<b>Claim {number}</b>: {escape(CLAIMS[number])}.<br>"
            f"<b>{mark} It {verdict}</b>"
            f"{f': {escape(correction)}' if correction else ''}.<br>"
            f"<small>{escape(figure)}.</small></div>"
        )
        return {
            "text/plain": repr(self),
            "text/markdown": shown,
            "text/html": as_html,
            MIME_TYPE: self.data,
        }


def claim(number: int, figure: str, verdict: str = HOLDS, correction: str = "") -> None:
    """Show what became of a claim of the lecture, in a notebook.

    The cell asserts the figure beforehand. Needs IPython, which notebooks run on.

    Args:
        number: of the claim, among `CLAIMS`.
        figure: what decided it, in words and numbers.
        verdict: `HOLDS`, `CORRECTED` or `FAILS`.
        correction: what is true instead, if the verdict is `CORRECTED`.

    Raises:
        ValueError: if there is no such claim or verdict, or a correction without its verdict.

    >>> from gdtx.explore.claims import CORRECTED, claim
    >>> claim(2, "the loss ends 1% above its floor", CORRECTED, "where there is noise")
    Claim 2, η must decay for convergence: the loss ends 1% above its floor. \
It holds with a correction: where there is noise.
    """
    from IPython.display import display

    if number not in CLAIMS:
        raise ValueError(f"claim: number must be one of 1 to {len(CLAIMS)}, got {number}")
    if verdict not in (HOLDS, CORRECTED, FAILS):
        raise ValueError(f"claim: verdict must be HOLDS, CORRECTED or FAILS, got {verdict!r}")
    if (verdict == CORRECTED) != bool(correction):
        raise ValueError("claim: a correction goes with the verdict CORRECTED, and only with it")
    display(Outcome(number, figure, verdict, correction))
