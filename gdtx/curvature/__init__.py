"""Curvature of a model's loss, in Kronecker factors, and the links that divide by it.

`model/` finds the layers in a user's program and puts taps there; it knows nothing of this half.
From there up: `losses`, the curvature that a loss has in the outputs; `evaluation`, loss, gradient
and statistics at once, as the `Curvature` of `curvature`; `blocks`, averages of its factors and the
eigenbases of `factors`; `preconditioner`, the frame of the links in `kfac` and `ekfac`. Beside it:
`fisher`, lengths in its norm; `natural_gradient`, the exact matrix; `levenberg_marquardt`, damping
that adapts itself. The methods, `kfac` and `natural_gradient`, are in `methods/`.
"""
