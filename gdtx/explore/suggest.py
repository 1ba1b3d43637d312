"""Learning rates suggested by a curve of losses over learning rates."""

from __future__ import annotations

import numpy as np

RULES = ("valley", "steepest", "slide", "minimum")


def suggest(
    learning_rates: np.ndarray, losses: np.ndarray, rounding: float = 0.0
) -> dict[str, float]:
    """The four suggestions of :func:`lr_range_test` from a curve that is already smooth.

    A loss that falls by no more than this share of itself has not fallen.
    """
    found: dict[str, float] = dict.fromkeys(RULES, float("nan"))
    finite = np.isfinite(losses)
    x = np.log10(np.asarray(learning_rates, np.float64)[finite])
    y = np.asarray(losses, np.float64)[finite]
    if len(y) < 3:
        return found
    slopes = _slopes(x, y)
    lowest = int(np.argmin(y))
    start, end = _longest_valley(y)
    if y[start] - y[end] > rounding * abs(y[start]):
        found["valley"] = 10 ** (x[start] + (x[end] - x[start]) * 2 / 3)
        found["steepest"] = 10 ** x[np.argmin(slopes)]
    if y[0] - y[lowest] > rounding * abs(y[0]):
        found["minimum"] = 10 ** x[lowest] / 10
        found["slide"] = _slide(x, slopes / (y[0] - y[lowest]))
    return {name: float(rate) for name, rate in found.items()}


def _slopes(x: np.ndarray, y: np.ndarray, reach: float = 0.25) -> np.ndarray:
    """Of chords that reach this far to both sides: between neighbours, noise is all there is."""
    left, right = np.maximum(x - reach, x[0]), np.minimum(x + reach, x[-1])
    return (np.interp(right, x, y) - np.interp(left, x, y)) / (right - left)


def _longest_valley(y: np.ndarray) -> tuple[int, int]:
    """First and last point of the longest strictly falling subsequence."""
    lengths, starts = np.ones(len(y), int), np.arange(len(y))
    for i in range(1, len(y)):
        before = np.where(y[:i] > y[i], lengths[:i], 0)
        if before.max():
            lengths[i] = before.max() + 1
            starts[i] = starts[:i][before == before.max()].max()
    end = int(np.argmax(lengths))
    return int(starts[end]), end


def _slide(x: np.ndarray, slopes: np.ndarray, width: float = 1.2, most: float = 0.5) -> float:
    for right in range(len(x) - 1, 0, -1):
        lower = x[right] - width
        if lower < x[0]:
            break
        if abs(slopes[right] - np.interp(lower, x, slopes)) <= most:
            return 10**lower
    return float("nan")
