"""What schedules are at a step, as expressions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from ..core.calls.call import Call
from ..core.calls.text import changed, show
from ..core.combine import multiply, plus, subtract
from ..core.schedule import Schedule, clip_schedule, merge_schedules, shift_schedule
from .expression import Apply, Expression, Number, apply, expression
from .notation import PI, word

_rules: dict[Any, Callable[..., Expression]] = {}


def schedule_formula(
    factory: Any,
) -> Callable[[Callable[..., Expression]], Callable[..., Expression]]:
    r"""State the formula of a schedule, where its code is not its formula.

        @schedule_formula(linear_schedule)
        def _(now, init_value, end_value, transition_steps):
            return between(now.share(transition_steps), init_value, end_value)

    The decorated function is one of the moment, and of those arguments of the schedule that it
    names. What a rule says in plain arithmetic, or by other schedules, needs no formula beside it.
    """

    def state(rule: Callable[..., Expression]) -> Callable[..., Expression]:
        _rules[factory] = rule
        return rule

    return state


class Moment(NamedTuple):
    """A step, as an expression, with what is known of it.

    Args:
        step: how many updates have been done.
        until: what it is below, if that is known.
        first: what $t$ is at step 0.
    """

    step: Expression
    until: Expression | None = None
    first: int = 0

    def value(self, schedule: Any) -> Expression:
        """What a schedule, a function of the step or a number is now: the call or the name, of one
        that has no formula."""
        if not callable(schedule):
            return expression(schedule)
        try:
            return self._known(schedule)
        except Exception:  # every function has its own way to refuse what is no array
            return self._called(schedule)

    def _known(self, schedule: Any) -> Expression:
        if not isinstance(schedule, Schedule):
            return expression(schedule(self.step))
        rule = _rules.get(schedule.factory)
        if rule is None:
            return self._known(schedule.body(schedule.arguments))
        names = list(inspect.signature(rule).parameters)[1:]
        return rule(self, *(schedule.arguments[name] for name in names))

    def _called(self, schedule: Any) -> Expression:
        if isinstance(schedule, Call):
            return Apply("call", (_shown(schedule), self.step))
        name = getattr(schedule, "__name__", "<lambda>")
        return Apply("schedule" if name == "<lambda>" else name, (self.step,))

    def after(self, steps: Any, until: Any = None) -> Moment:
        """The same moment, counted from a step on that it is not before."""
        if until is None:
            until = self.until
        return self._replace(
            step=self.step - steps, until=None if until is None else expression(until) - steps
        )

    def share(self, steps: Any, begin: Any = 0) -> Expression:
        """The share of the steps from `begin` on that is done, from 0 to 1."""
        steps, begin = expression(steps), expression(begin)
        done = self.passed(steps, begin)
        end = begin + steps
        if done == expression(0) or _is_at_most(self.until, end):
            return done
        return apply("\\min", done, 1)

    def passed(self, steps: Any, begin: Any = 0, staircase: bool = False) -> Expression:
        """How often `steps` have passed since `begin`."""
        done = self.step - expression(begin)
        if isinstance(done, Number):
            done = Number(max(done.value, Decimal(0)))
        elif expression(begin) != expression(0):
            done = apply("\\max", done, 0)
        often = done / expression(steps)
        return apply("floor", often) if staircase else often

    def before(self, boundary: Any) -> Expression:
        """The condition that the moment is before a step."""
        shift = next((part for part in _parts(self.step, "sum") if isinstance(part, Number)), 0)
        bound = expression(boundary) - shift
        is_whole = isinstance(bound, Number) and bound.value == bound.value.to_integral_value()
        if self.first == 1 and is_whole:  # then no step is 0 in the formula around it
            return apply("at most", self.step - shift, bound - 1)
        return apply("less", self.step - shift, bound)


def _shown(value: Any) -> Expression:
    if isinstance(value, Call):
        given = changed(value).items()
        named = (Apply("equal", (word(name), _shown(part))) for name, part in given)
        return Apply(value.signature.name, tuple(named))
    try:
        return expression(value)
    except TypeError:
        return word(show(value))


def _parts(value: Expression, head: str) -> tuple[Expression, ...]:
    return value.args if isinstance(value, Apply) and value.head == head else (value,)


def _is_at_most(one: Expression | None, other: Expression) -> bool:
    return isinstance(one, Number) and isinstance(other, Number) and one.value <= other.value


def between(share: Expression, start: Any, end: Any) -> Expression:
    """From `start` to `end`, by the share of the way that is done."""
    start, end = expression(start), expression(end)
    if end == expression(0):
        return start * (1 - share)
    return start + (end - start) * share


def half_cosine(share: Expression) -> Expression:
    """From 1 to 0 along half a cosine."""
    return expression(1) if share == expression(0) else (1 + apply("\\cos", PI * share)) / 2


def pieces(rows: list[tuple[Expression, Expression]], last: Expression) -> Expression:
    """Values with the conditions up to which they hold, in order, and the value from then on."""
    parts: list[Expression] = []
    for value, condition in rows:
        inside = _parts(value, "cases")
        if len(inside) % 2 and all(_ends_before(each, condition) for each in inside[1::2]):
            parts += [*inside, condition]
        else:
            parts += [value, condition]
    parts += _parts(last, "cases")
    return apply("cases", *parts)


def _ends_before(one: Expression, other: Expression) -> bool:
    return (
        isinstance(one, Apply) and isinstance(other, Apply) and one.head == other.head
        and one.args[0] == other.args[0] and _is_at_most(one.args[1], other.args[1])
    )  # fmt: skip


@schedule_formula(merge_schedules)
def _(now: Moment, merge: Any, one: Any, other: Any) -> Expression:
    mixed = _mixed(merge, one, other)
    if mixed is not None:
        share, start, end = map(now.value, mixed)
        return between(share, end, start)
    return expression(merge(now.value(one), now.value(other)))


def _mixed(merge: Any, one: Any, other: Any) -> tuple[Any, Any, Any] | None:
    r"""$s$, $a$ and $b$, if what is merged is $s a + (1 - s) b$."""
    if merge is not plus:
        return None
    share, start = _merged(one, multiply)
    rest, end = _merged(other, multiply)
    whole, without = _merged(rest, subtract)
    return (share, start, end) if whole == 1 and without == share is not None else None


def _merged(schedule: Any, merge: Any) -> tuple[Any, Any]:
    if not (isinstance(schedule, Schedule) and schedule.factory is merge_schedules):
        return None, None
    how, one, other = schedule.arguments.values()
    return (one, other) if how is merge else (None, None)


@schedule_formula(shift_schedule)
def _(now: Moment, schedule: Any, steps: Any) -> Expression:
    later = now.after(steps).value(schedule)
    if steps <= 0:
        return later
    held = now._replace(step=expression(0)).value(schedule)
    return pieces([(held, now.before(steps))], later)


@schedule_formula(clip_schedule)
def _(now: Moment, schedule: Any, low: Any, high: Any) -> Expression:
    value = now.value(schedule)
    value = value if low is None else apply("\\max", value, low)
    return value if high is None else apply("\\min", value, high)
