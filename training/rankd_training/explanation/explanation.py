"""Which fields act together in a run's model, and whether models just as good agree.

The fields that count most are taken by themselves; for each pair of them, the interaction in the model itself
and in models round it in the Rashomon set. See `interactions.py` and `rashomon.py` for the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import torch

from rankd_training.errors import SettingError
from rankd_training.examples.inputs import RowInputs, sampled_rows
from rankd_training.explanation.interactions import SHUFFLES, Effect, Effects, log_loss_of
from rankd_training.explanation.masks import masked
from rankd_training.explanation.rashomon import FieldMasks, HaloPoint, RashomonSettings, field_masks, halo
from rankd_training.runs.subject import Subject

__all__ = ["ExplainSettings", "Explanation", "Pair", "explain"]

FEWEST_FIELDS = 2


@dataclass(frozen=True, slots=True)
class ExplainSettings:
    """What to look at, and how closely.

    Attributes:
        fields: which to take further; by default those with the largest effect.
        top: how many by default.
        task: whose loss; None is the mean over tasks by weight, as in training.
        max_rows: at most so many rows, drawn at random.
        shuffles: permutations of each effect.
        seed: of rows and permutations.
        search: for models round the given one.
    """

    fields: tuple[str, ...] = ()
    top: int = 5
    task: str | None = None
    max_rows: int = 1000
    shuffles: int = SHUFFLES
    seed: int = 0
    search: RashomonSettings = field(default_factory=RashomonSettings)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two fields: their interaction in the model itself, and in the models round it."""

    one: str
    other: str
    reference: Effect
    halo: Sequence[HaloPoint]

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest interaction of all these models."""
        values = [self.reference.value, *(point.interaction.value for point in self.halo)]
        return min(values), max(values)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was found.

    Attributes:
        settings: how it was looked for.
        rows: on how many rows.
        loss: of the model itself.
        effects: phi of every field, largest first.
        masks: of the fields that were taken further.
        pairs: by the size of their interaction in the model itself, largest first.
    """

    settings: ExplainSettings
    rows: int
    loss: float
    effects: dict[str, Effect]
    masks: Sequence[FieldMasks]
    pairs: Sequence[Pair]

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "pairs": [{**asdict(pair), "span": pair.span} for pair in self.pairs]}


def explain(
    subject: Subject,
    settings: ExplainSettings,
    *,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Explanation:
    """Explain a run's model on the subject's rows.

    Args:
        subject: from `load_subject`.
        settings: what to look at, and how closely.
        progress: told how many steps are done, of how many, and what is next.

    Raises:
        SettingError: a task or field is unknown, or fewer than two fields are left.
    """
    schema, search, fields = subject.run.schema, settings.search, settings.fields
    _check(fields, list(schema.fields), "field")
    _check([settings.task] if settings.task else [], [t.name for t in schema.tasks], "task")
    row_N = sampled_rows(subject.row_N, settings.max_rows, settings.seed)
    inputs = RowInputs.of(subject.examples, row_N)
    label_NT = torch.from_numpy(subject.examples.label_nT[row_N])
    count = len(fields) or min(settings.top, len(schema.fields))
    if count < FEWEST_FIELDS:
        raise SettingError(f"an interaction needs two fields or more, got {count}")
    total, done = len(schema.fields) + count + count * (count - 1) // 2, 0
    with masked(subject.run.model, schema) as masks:
        effects = Effects(
            subject.run.model,
            masks,
            inputs,
            label_NT,
            loss=log_loss_of(schema, settings.task),
            shuffles=settings.shuffles,
            seed=settings.seed,
        )
        phi = {}
        for name in schema.fields:
            progress(done, total, f"effect of {name}")
            phi[name], done = effects.phi({}, name), done + 1
        phi = dict(sorted(phi.items(), key=lambda item: -item[1].value))
        chosen = list(fields) or list(phi)[:count]
        found = []
        for name in chosen:
            progress(done, total, f"models round {name}")
            found.append(field_masks(effects, name, search))
            done += 1
        pairs = []
        for one, other in combinations(found, 2):
            progress(done, total, f"{one.field} with {other.field}")
            reference = effects.interaction({}, one.field, other.field)
            pairs.append(Pair(one.field, other.field, reference, halo(effects, one, other, search)))
            done += 1
        pairs.sort(key=lambda pair: -abs(pair.reference.value))
        return Explanation(settings, len(row_N), effects.loss({}), phi, found, pairs)


def _check(given: Sequence[str], known: Sequence[str], what: str) -> None:
    for k, name in enumerate(given):
        if name not in known:
            raise SettingError(f"no {what} is called {name!r}; known: {', '.join(known)}")
        if name in given[:k]:
            raise SettingError(f"{what} {name!r} is named twice")
