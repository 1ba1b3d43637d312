"""The public names by group, in the order in which `help(gdtx)` shows them."""

from . import (
    algebra,
    configuration,
    curvature,
    devices,
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
    devices,
    curvature,
    hyperparameters,
    reading,
    experiments,
    configuration,
    kinds,
)
