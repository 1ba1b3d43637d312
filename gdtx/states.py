"""What states are made of: a class for each transformation that keeps more than a tree of arrays.

`isinstance` is for these; :func:`gdtx.find` reads any state by the names in it.
"""

from .core.memory import CountedRecurState as CountedRecurState
from .core.memory import CountState as CountState
from .core.memory import RecurState as RecurState
from .core.scheduled import ScheduledState as ScheduledState
from .core.select import MaskedState as MaskedState
from .core.select import PartitionState as PartitionState
from .core.tree_memory import TreeRecurState as TreeRecurState
from .core.trees.eight_bits import EightBits as EightBits
from .curvature.blocks import BlocksState as BlocksState
from .curvature.ekfac import EkfacState as EkfacState
from .curvature.factors import Eigenbasis as Eigenbasis
from .curvature.fisher import FisherNormState as FisherNormState
from .curvature.kfac import KfacState as KfacState
from .curvature.levenberg_marquardt import LevenbergMarquardtState as LevenbergMarquardtState
from .linesearch.conditions import SearchEnd as SearchEnd
from .links.correction import ProductState as ProductState
from .links.matrix.cover import CoverState as CoverState
from .links.matrix.eigenbasis import EigenbasisState as EigenbasisState
from .links.matrix.full_matrix import FullMatrixState as FullMatrixState
from .links.matrix.low_rank import LowRankState as LowRankState
from .links.matrix.pairs import LbfgsState as LbfgsState
from .links.matrix.precondition import PreconditionState as PreconditionState
from .links.matrix.projected import ProjectedState as ProjectedState
from .links.matrix.whiten import WhitenState as WhitenState
from .links.matrix.window import WindowState as WindowState
from .links.plateau import PlateauState as PlateauState
from .links.search.backtracking import (
    BacktrackingLinesearchState as BacktrackingLinesearchState,
)
from .links.search.zoom import ZoomLinesearchState as ZoomLinesearchState
from .wrappers.accumulate_gradients import AccumulateState as AccumulateState
from .wrappers.average import AverageState as AverageState
from .wrappers.displaced import DisplacedState as DisplacedState
from .wrappers.lookahead import LookaheadState as LookaheadState
from .wrappers.master_bits import MasterBitsState as MasterBitsState
from .wrappers.master_weights import MasterState as MasterState
from .wrappers.remember import RememberState as RememberState
from .wrappers.schedule_free import ScheduleFreeState as ScheduleFreeState
from .wrappers.sharpness_aware import PerturbedState as PerturbedState
from .wrappers.skip import SkipState as SkipState
from .wrappers.sometimes import EveryState as EveryState
from .wrappers.sometimes import WhenState as WhenState
from .wrappers.stored import StoredState as StoredState
from .wrappers.tunable import TunableState as TunableState
