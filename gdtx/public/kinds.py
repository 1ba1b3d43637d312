"""Kinds of hyperparameters, for annotations; all of them are in gdtx.kinds."""

from ..core.calls.kinds import Count as Count
from ..core.calls.kinds import Decay as Decay
from ..core.calls.kinds import FloatDType as FloatDType
from ..core.calls.kinds import Fraction as Fraction
from ..core.calls.kinds import Function as Function
from ..core.calls.kinds import Kind as Kind
from ..core.calls.kinds import NonNegative as NonNegative
from ..core.calls.kinds import Positive as Positive
from ..core.calls.kinds import Scalar as Scalar
from ..core.calls.kinds import Seed as Seed
