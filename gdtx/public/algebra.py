"""Algebra: rules on one array made into transformations, and transformations put together."""

from ..core.calls.options import Options as Options
from ..core.combine import chain as chain
from ..core.combine import divide as divide
from ..core.combine import feedback as feedback
from ..core.combine import join as join
from ..core.combine import multiply as multiply
from ..core.combine import plus as plus
from ..core.combine import previous as previous
from ..core.combine import subtract as subtract
from ..core.factory import transformation as transformation
from ..core.graft import graft as graft
from ..core.joined import join_trees as join_trees
from ..core.let import let as let
from ..core.let import value_of as value_of
from ..core.memory import accumulate as accumulate
from ..core.memory import counted as counted
from ..core.memory import recur as recur
from ..core.random import randomized as randomized
from ..core.rules import elementwise as elementwise
from ..core.rules import identity as identity
from ..core.rules import set_to_zero as set_to_zero
from ..core.rules import treewise as treewise
from ..core.rules import with_params as with_params
from ..core.transformation import GradientTransformation as GradientTransformation
from ..core.tree_memory import recur_tree as recur_tree
