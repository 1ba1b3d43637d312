"""What notebooks use: states, schedules and learning rates, read and drawn."""

from .directions import PathDirections as PathDirections
from .directions import path_directions as path_directions
from .directions import random_direction as random_direction
from .effective import effective_learning_rates as effective_learning_rates
from .effective import plot_effective_learning_rates as plot_effective_learning_rates
from .effective import update_ratios as update_ratios
from .landscape import Landscape as Landscape
from .landscape import loss_landscape as loss_landscape
from .landscape import plot_landscape as plot_landscape
from .spectrum import PreconditionerSpectrum as PreconditionerSpectrum
from .spectrum import plot_preconditioner_spectrum as plot_preconditioner_spectrum
from .spectrum import preconditioner_spectrum as preconditioner_spectrum
