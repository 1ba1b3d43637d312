"""Curvature of a model's loss, in Kronecker factors, and the links that divide by it."""
