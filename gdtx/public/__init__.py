"""The public names by group, in the order in which `help(gdtx)` shows them."""

from . import (
    algebra,
    experiments,
    hyperparameters,
    kinds,
    links,
    matrices,
    methods,
    parameters,
    reading,
    schedules,
    wrappers,
)

GROUPS = (
    algebra,
    links,
    matrices,
    methods,
    schedules,
    wrappers,
    parameters,
    hyperparameters,
    reading,
    experiments,
    kinds,
)
