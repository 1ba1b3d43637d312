"""Many devices: where state belongs; more is in gdtx.sharding."""

from ..sharding.state import state_sharding as state_sharding
from ..sharding.zero import zero1 as zero1
