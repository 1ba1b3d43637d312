"""The algebra: calls as data, transformations, makers, combinators, schedules, states, numbers."""
