"""Kinds of arguments: annotations that say what is accepted, for the check and its message.

A factory's argument that is annotated `Decay` takes a number in [0, 1), an array or a schedule of
such numbers, and raises an error that says so for anything else. :class:`Kind` makes further ones:

>>> import gdtx
>>> from typing import Annotated
>>> kind = gdtx.Kind("in [0, 100]", lambda x: 0 <= x <= 100, scalar=True)
>>> Percent = Annotated[float, kind]
>>> @gdtx.transformation
... def reduce(percent: Percent):
...     return gdtx.scale(1 - percent / 100)
>>> reduce(130)
Traceback (most recent call last):
    ...
ValueError: reduce: percent must be in [0, 100], got 130
"""

from .core.calls.kinds import ArrayFunction as ArrayFunction
from .core.calls.kinds import AtLeastOne as AtLeastOne
from .core.calls.kinds import Bound as Bound
from .core.calls.kinds import Count as Count
from .core.calls.kinds import Decay as Decay
from .core.calls.kinds import FloatDType as FloatDType
from .core.calls.kinds import Fraction as Fraction
from .core.calls.kinds import Function as Function
from .core.calls.kinds import InnerDecay as InnerDecay
from .core.calls.kinds import Kind as Kind
from .core.calls.kinds import LengthThreshold as LengthThreshold
from .core.calls.kinds import NonNegative as NonNegative
from .core.calls.kinds import ParamsFunction as ParamsFunction
from .core.calls.kinds import PathOfNumber as PathOfNumber
from .core.calls.kinds import Patterns as Patterns
from .core.calls.kinds import Positive as Positive
from .core.calls.kinds import PositiveCount as PositiveCount
from .core.calls.kinds import Scalar as Scalar
from .core.calls.kinds import Seed as Seed
from .core.calls.kinds import StepCount as StepCount
from .core.calls.kinds import StepFunction as StepFunction
from .core.calls.kinds import TreeFunction as TreeFunction
from .core.calls.kinds import TwoArraysFunction as TwoArraysFunction
from .core.calls.kinds import one_of as one_of
from .core.calls.types import Number as Number
from .core.calls.types import NumberOrSchedule as NumberOrSchedule
from .core.calls.types import NumPyValue as NumPyValue
from .core.calls.types import ScheduleLike as ScheduleLike
from .core.calls.types import TransformationLike as TransformationLike
from .core.schedule import Term as Term
from .core.select import Groups as Groups
from .links.matrix.orthogonal import ShapeFactor as ShapeFactor
from .links.matrix.polynomials import Coefficients as Coefficients
from .links.matrix.spaces import Basis as Basis
from .schedules.basic import Factors as Factors
from .schedules.cyclic import Cycles as Cycles
from .schedules.joined import Interpolation as Interpolation
from .schedules.one_cycle import Share as Share
from .wrappers.accumulate_gradients import Every as Every
from .wrappers.dealt import MaybeMesh as MaybeMesh
from .wrappers.dealt import MeshAxes as MeshAxes
