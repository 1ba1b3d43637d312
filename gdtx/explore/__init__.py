"""What notebooks use: states, schedules and learning rates, read and drawn."""

from .minimize import Minimized as Minimized
from .minimize import minimize as minimize
from .problems import Problem as Problem
from .problems import beale as beale
from .problems import quadratic as quadratic
from .problems import rastrigin as rastrigin
from .problems import rosenbrock as rosenbrock
from .problems import saddle as saddle
from .problems import valley as valley
from .trajectories import Trajectories as Trajectories
from .trajectories import trajectories as trajectories
from .trajectories import tuned as tuned
from .trajectory_plots import animate as animate
from .trajectory_plots import plot_gallery as plot_gallery
from .trajectory_plots import plot_trajectories as plot_trajectories
