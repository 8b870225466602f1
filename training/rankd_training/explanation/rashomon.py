"""Models about as good as a given one, found by scaling its fields (arXiv 2305.10181, greedy search).

The Rashomon set of f holds the models f(m · x) whose loss is at most (1 + epsilon) times that of f. For each
field, upward and downward, m moves from 1 in steps while the loss stays below a share of epsilon; a step that
goes too far is divided by ten, four times. For a pair, epsilon is split between the two fields, in all four
directions: the models on the boundary that lie round f, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankd_training.errors import SettingError
from rankd_training.explanation.interactions import Effect, Effects

__all__ = ["FieldMasks", "HaloPoint", "RashomonSettings", "field_masks", "halo"]

HALVINGS = 12
UP, DOWN = 1, -1


@dataclass(frozen=True, slots=True)
class RashomonSettings:
    """How far and how finely to look.

    Attributes:
        epsilon: how much worse a model of the set may be, as a share of the loss.
        step: first step of a mask.
        refinements: how often a step is divided by ten.
        fractions: shares of epsilon at which each field's mask is kept, ascending from 0 to 1; a pair takes a
            share for one field and what is left for the other, so that 1 - share must be one of them too.
        farthest: a mask moves at most this far from 1: one that changes nothing would never stop. Ours.
    """

    epsilon: float = 0.05
    step: float = 0.1
    refinements: int = 4
    fractions: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    farthest: float = 5.0

    def __post_init__(self) -> None:
        """Raise SettingError for values that make no sense."""
        if not self.epsilon > 0:
            raise SettingError(f"epsilon: expected a share above 0, got {self.epsilon}")
        mirrored = sorted(round(1 - f, 9) for f in self.fractions)
        if mirrored != [round(f, 9) for f in self.fractions] or self.fractions[:1] != (0.0,):
            raise SettingError(
                f"fractions: expected ascending shares from 0 to 1, each with 1 - share, got {self.fractions}"
            )


@dataclass(frozen=True, slots=True)
class FieldMasks:
    """One field's masks at each fraction, upward and downward."""

    field: str
    up: tuple[float, ...]
    down: tuple[float, ...]

    def at(self, direction: int) -> tuple[float, ...]:
        """Return those of a direction."""
        return self.up if direction == UP else self.down


@dataclass(frozen=True, slots=True)
class HaloPoint:
    """A model of the set that differs in two fields.

    Attributes:
        mask: the two fields' scales.
        loss: of this model.
        phi: effect of each of the two.
        interaction: FIS of the two.
    """

    mask: Mapping[str, float]
    loss: float
    phi: tuple[Effect, Effect]
    interaction: Effect


def field_masks(effects: Effects, field: str, settings: RashomonSettings) -> FieldMasks:
    """Search one field's masks."""
    bound = settings.epsilon * effects.loss({})
    return FieldMasks(
        field,
        _search(effects, field, UP, bound, settings),
        _search(effects, field, DOWN, bound, settings),
    )


def halo(effects: Effects, one: FieldMasks, other: FieldMasks, settings: RashomonSettings) -> list[HaloPoint]:
    """Walk once round the boundary: up and up, down and up, down and down, up and down.

    Where two fields act on each other, halves of epsilon do not add up to the whole; a model that left the
    set is brought back towards f until it is in it.
    """
    points = []
    last = len(settings.fractions) - 1
    # A quarter begins where the one before ended, so its last point is left to the next.
    quarters = [(UP, UP, range(last)), (DOWN, UP, range(last, 0, -1))]
    quarters += [(DOWN, DOWN, range(last)), (UP, DOWN, range(last, 0, -1))]
    for first, second, order in quarters:
        for k in order:
            # From the first field alone (k = 0) to the second alone, then back.
            wanted = {one.field: one.at(first)[last - k], other.field: other.at(second)[k]}
            mask = _within(effects, wanted, (1 + settings.epsilon) * effects.loss({}))
            points.append(
                HaloPoint(
                    mask,
                    effects.loss(mask),
                    (effects.phi(mask, one.field), effects.phi(mask, other.field)),
                    effects.interaction(mask, one.field, other.field),
                )
            )
    return points


def _search(
    effects: Effects, field: str, direction: int, bound: float, settings: RashomonSettings
) -> tuple[float, ...]:
    found, mask, whole = [], 1.0, effects.loss({})
    for fraction in settings.fractions:
        step, refined = settings.step, 0
        while refined < settings.refinements:
            # Rounded, so that ten tenths are one and the same mask is not scored twice.
            ahead = round(mask + direction * step, 9)
            inside = effects.loss({field: ahead}) - whole < fraction * bound
            if inside and abs(ahead - 1) <= settings.farthest:
                mask = ahead
            else:
                step, refined = step / 10, refined + 1
        found.append(mask)
    return tuple(found)


def _within(effects: Effects, wanted: Mapping[str, float], most: float) -> dict[str, float]:
    """The mask as wanted, or as much of it as keeps the loss within `most`."""
    if effects.loss(wanted) <= most:
        return dict(wanted)
    inside, outside = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if effects.loss(_part(wanted, middle)) <= most:
            inside = middle
        else:
            outside = middle
    return _part(wanted, inside)


def _part(wanted: Mapping[str, float], share: float) -> dict[str, float]:
    return {field: 1 + share * (scale - 1) for field, scale in wanted.items()}
