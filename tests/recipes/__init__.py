"""The methods of `docs/recipes` again, each from its paper alone: NumPy in float64, a module for a
section, a function for a recipe.

    @per_array
    def laprop(x, gradient):
        n = m = 0.0
        for t in count(1):
            g = gradient(x, t)
            ...
            yield x

A rule is given the parameters at first, a dict of arrays, and `gradients(params, t)`, their
gradient at any point in step t, which begins with 1. It yields the parameters after each step, new
arrays. `@per_array` is for rules of one array at a time. Further arguments are those that the
block has after `:extra:`, functions of `(params, t)` as well: see `EXTRA` in `problem.py`.
Of a block with `:evaluated: yes` it yields what is evaluated (`eval_params`); with `:examples: yes`
its gradients have an axis of three examples before all others.

`PEERS` in each module are its recipes in the package pytorch_optimizer.
"""
