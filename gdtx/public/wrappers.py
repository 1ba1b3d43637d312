"""Wrappers: transformations around a method."""

from ..wrappers.accumulate_gradients import accumulate_gradients as accumulate_gradients
from ..wrappers.average import average as average
from ..wrappers.dealt import dealt as dealt
from ..wrappers.displaced import displaced as displaced
from ..wrappers.lookahead import lookahead as lookahead
from ..wrappers.master_bits import master_bits as master_bits
from ..wrappers.master_weights import master_weights as master_weights
from ..wrappers.mechanize import mechanize as mechanize
from ..wrappers.polyak import polyak_step as polyak_step
from ..wrappers.remember import remember as remember
from ..wrappers.schedule_free import schedule_free as schedule_free
from ..wrappers.sharded import sharded as sharded
from ..wrappers.sharpness_aware import sharpness_aware as sharpness_aware
from ..wrappers.skip import skip_large as skip_large
from ..wrappers.skip import skip_nonfinite as skip_nonfinite
from ..wrappers.skip import skip_when as skip_when
from ..wrappers.sometimes import every as every
from ..wrappers.sometimes import when as when
from ..wrappers.stacked import stacked as stacked
from ..wrappers.stored import stored as stored
