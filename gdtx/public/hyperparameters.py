"""Hyperparameters: read, replaced, mapped over, kept in the state."""

from ..core.hyperparams import as_arrays as as_arrays
from ..core.hyperparams import replace as replace
from ..core.hyperparams import sweep as sweep
from ..core.reading import hyperparams as hyperparams
from ..wrappers.tunable import set_hyperparams as set_hyperparams
from ..wrappers.tunable import tunable as tunable
