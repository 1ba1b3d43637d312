"""Where states belong on many devices, before they are there.

`state_sharding(tx, params)` is the sharding of every array of `tx.init(params)`. With
`zero1(params, axis)` in place of the parameters it is cut over the devices that hold equal copies
of them.
"""

from .state import state_sharding as state_sharding
from .zero import zero1 as zero1
