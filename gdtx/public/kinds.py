"""Kinds of hyperparameters, for annotations; all of them are in gdtx.kinds."""

from ..core.kinds import Count as Count
from ..core.kinds import Decay as Decay
from ..core.kinds import FloatDType as FloatDType
from ..core.kinds import Fraction as Fraction
from ..core.kinds import Function as Function
from ..core.kinds import Kind as Kind
from ..core.kinds import NonNegative as NonNegative
from ..core.kinds import Positive as Positive
from ..core.kinds import Scalar as Scalar
from ..core.kinds import Seed as Seed
