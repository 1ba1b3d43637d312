"""Experiments: schedules drawn and learning rates tried; more are in gdtx.explore."""

from ..explore.plots import plot_schedule as plot_schedule
from ..explore.plots import schedule_values as schedule_values
from ..explore.range_test import LRRangeTest as LRRangeTest
from ..explore.range_test import lr_range_test as lr_range_test
from ..explore.range_test import plot_lr_range_test as plot_lr_range_test
from ..inspect.members import member_axes as member_axes
