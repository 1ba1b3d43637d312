"""Curvature: the Hessian's diagonal estimated, for `update(..., hessian=...)`."""

from ..curvature.diagonal import gauss_newton_bartlett as gauss_newton_bartlett
from ..curvature.diagonal import hutchinson as hutchinson
