"""Parameters: which are trained, and by what."""

from ..core.freeze import freeze as freeze
from ..core.freeze import trainable as trainable
from ..core.select import masked as masked
from ..core.select import partition as partition
from ..core.trees.apply_updates import apply_updates as apply_updates
from ..links.clipping import global_norm as global_norm
from ..links.layers import matrices_only as matrices_only
from ..wrappers.evaluation import eval_params as eval_params
