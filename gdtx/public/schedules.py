"""Schedules: hyperparameters as functions of the step."""

from ..core.schedule import Schedule as Schedule
from ..core.schedule import clip_schedule as clip_schedule
from ..core.schedule import merge_schedules as merge_schedules
from ..core.schedule import schedule as schedule
from ..core.schedule import shift_schedule as shift_schedule
from ..schedules.basic import constant_schedule as constant_schedule
from ..schedules.basic import linear_schedule as linear_schedule
from ..schedules.basic import piecewise_constant_schedule as piecewise_constant_schedule
from ..schedules.basic import polynomial_schedule as polynomial_schedule
from ..schedules.cyclic import cyclic_schedule as cyclic_schedule
from ..schedules.cyclic import sgdr_schedule as sgdr_schedule
from ..schedules.decay import cosine_decay_schedule as cosine_decay_schedule
from ..schedules.decay import exponential_decay as exponential_decay
from ..schedules.decay import inverse_power_schedule as inverse_power_schedule
from ..schedules.decay import inverse_time_decay as inverse_time_decay
from ..schedules.joined import join_schedules as join_schedules
from ..schedules.joined import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from ..schedules.one_cycle import cosine_onecycle_schedule as cosine_onecycle_schedule
from ..schedules.one_cycle import linear_onecycle_schedule as linear_onecycle_schedule
from ..schedules.one_cycle import one_cycle as one_cycle
from ..schedules.one_cycle import onecycle_momentum_schedule as onecycle_momentum_schedule
from ..schedules.warmup import inverse_sqrt_schedule as inverse_sqrt_schedule
from ..schedules.warmup import warmup_constant_schedule as warmup_constant_schedule
from ..schedules.warmup import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from ..schedules.warmup import (
    warmup_exponential_decay_schedule as warmup_exponential_decay_schedule,
)
from ..schedules.warmup import warmup_stable_decay_schedule as warmup_stable_decay_schedule
