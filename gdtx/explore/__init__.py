"""What notebooks use: states, schedules and learning rates, read and drawn."""

from .batch_size import batch_size_study as batch_size_study
from .minimize import Minimized as Minimized
from .minimize import minimize as minimize
from .noise_scale import NoiseScale as NoiseScale
from .noise_scale import gradient_noise_scale as gradient_noise_scale
from .noise_scale import two_batch_noise_scale as two_batch_noise_scale
from .noisy_quadratic import NoisyQuadratic as NoisyQuadratic
from .noisy_quadratic import Simulation as Simulation
from .noisy_quadratic import noisy_quadratic as noisy_quadratic
from .problems import Problem as Problem
from .problems import beale as beale
from .problems import quadratic as quadratic
from .problems import rastrigin as rastrigin
from .problems import rosenbrock as rosenbrock
from .problems import saddle as saddle
from .problems import valley as valley
from .steps_to_target import steps_to_target as steps_to_target
from .study import BatchSizeStudy as BatchSizeStudy
from .study import critical_batch_size as critical_batch_size
from .study import plot_batch_size_study as plot_batch_size_study
from .trajectories import Trajectories as Trajectories
from .trajectories import trajectories as trajectories
from .trajectories import tuned as tuned
from .trajectory_plots import animate as animate
from .trajectory_plots import plot_gallery as plot_gallery
from .trajectory_plots import plot_trajectories as plot_trajectories
