"""The explanation of one run's model as a page: effects of fields, swarm of all pairs, halos of some."""

from __future__ import annotations

from collections.abc import Sequence

from rankd_training.explanation.explanation import Explanation, Pair
from rankd_training.explanation.interactions import Effect
from rankd_training.pages import charts
from rankd_training.pages.page import figure, page, section, table, tiles
from rankd_training.pages.svg import number
from rankd_training.pages.swarm import Halo, Swarm, halo_chart, swarm_chart
from rankd_training.runs.subject import Subject

__all__ = ["explanation_page"]

MOST_FIELDS, MOST_HALOS, MOST_PAIRS = 30, 6, 28
TWO_ERRORS = 2.0


def explanation_page(subject: Subject, found: Explanation) -> str:
    """Write the page."""
    record = subject.run.record
    task = found.settings.task
    lead = (
        f"{subject.run.schema.name} · {found.rows:,} rows of the {subject.split} split · "
        f"log loss of {f'task {task}' if task else 'all tasks by weight'} · "
        f"{found.settings.shuffles} permutations an effect"
    )
    return page(
        f"Explanation report: {record['model']}",
        lead,
        [
            tiles(_headline(found)),
            _effects(found),
            _swarm(found),
            _halos(found),
            _pairs(found),
            _reading(found),
        ],
    )


def _headline(found: Explanation) -> list[tuple[str, str, str]]:
    first = next(iter(found.effects))
    strongest = found.pairs[0]
    models = sum(len(pair.halo) for pair in found.pairs)
    return [
        ("log loss", f"{found.loss:.4f}", "of the model itself"),
        ("largest effect", first, f"{_signed(found.effects[first].value)} log loss without it"),
        (
            "strongest interaction",
            _signed(strongest.reference.value),
            f"{strongest.one} with {strongest.other}",
        ),
        (
            "models looked at",
            f"{models:,}",
            f"each at most {100 * found.settings.search.epsilon:g} % worse in log loss",
        ),
    ]


def _effects(found: Explanation) -> str:
    shown = list(found.effects.items())[:MOST_FIELDS]
    series = [_dots("effect", [effect for _, effect in shown], 0)]
    drawing = charts.dot_chart(
        [name for name, _ in shown],
        series,
        title="effect of each field",
        x_label="rise of the log loss",
        reference=0.0,
        bars=True,
    )
    chosen = [one.field for one in found.masks]
    ranges = []
    for field in chosen:
        values = [
            point.phi[pair.one != field].value
            for pair in found.pairs
            if field in {pair.one, pair.other}
            for point in pair.halo
        ]
        ranges.append(Swarm(field, values, found.effects[field].value))
    swarm = swarm_chart(ranges, title="effects over models", x_label="rise of the log loss", width=480)
    return section(
        "Fields",
        [
            figure("Effect of each field", drawing, note="Whiskers: two standard errors over permutations."),
            figure(
                "Effects in models just as good",
                swarm,
                legend=[("models of the set", 0), ("the model itself", 1)],
            ),
        ],
        note="How much log loss is added when a field's values are swapped between rows.",
    )


def _swarm(found: Explanation) -> str:
    rows = [
        Swarm(_title(pair), [point.interaction.value for point in pair.halo], pair.reference.value)
        for pair in found.pairs[:MOST_PAIRS]
    ]
    note = (
        "Below zero: either field alone already spoils what the two make together, as in a product. Above "
        "zero: each can stand in for the other. A pair whose dots stay on one side interacts in every model "
        "that is about as good; one that straddles zero depends on which of them was trained."
    )
    drawing = swarm_chart(rows, title="interactions of all pairs over models", x_label="interaction (FIS)")
    legend = [("models of the set", 0), ("the model itself", 1)]
    return section("Swarm: every pair", note=note) + _wide(figure("Interactions", drawing, legend=legend))


def _halos(found: Explanation) -> str:
    shown = found.pairs[:MOST_HALOS]
    largest = max(abs(end) for pair in shown for end in pair.span)
    figures = []
    for pair in shown:
        halo = Halo(
            pair.one,
            pair.other,
            [point.interaction.value for point in pair.halo],
            [
                ", ".join(f"{field} × {number(round(scale, 3))}" for field, scale in point.mask.items())
                for point in pair.halo
            ],
        )
        low, high = pair.span
        note = f"{_signed(low)} to {_signed(high)}"
        figures.append(figure(_title(pair), halo_chart(halo, largest, title=_title(pair)), note=note))
    note = (
        "One pair each, while the scales of its two fields go round the edge of the set: right and left, the "
        "first field stronger and weaker; up and down, the second. The dashed ring is no interaction, inside "
        "it the interaction is below zero, outside above. All halos have one scale."
    )
    return section("Halos: the strongest pairs", note=note) + f'<div class="halos">{"".join(figures)}</div>'


def _pairs(found: Explanation) -> str:
    rows = []
    for pair in found.pairs[:MOST_PAIRS]:
        low, high = pair.span
        sign = "always below 0" if high < 0 else "always above 0" if low > 0 else "either"
        rows.append(
            [
                _title(pair),
                f"{_signed(pair.reference.value)}\t± {pair.reference.error:.4f}",
                _signed(low),
                _signed(high),
                sign,
            ]
        )
    head = ["pair", "the model itself", "lowest", "highest", "sign over the set"]
    more = len(found.pairs) - len(rows)
    note = f"{more} weaker pairs are in the JSON file." if more else ""
    return section("Table", note=note) + table(head, rows)


def _reading(found: Explanation) -> str:
    search = found.settings.search
    text = (
        f"Effect of a set of fields: mean over {found.settings.shuffles} permutations of the log loss with "
        "these fields permuted, minus the log loss. Interaction of two: effect of both minus the effects of "
        "each. Models of the set: the model with fields scaled, log loss at most "
        f"(1 + {search.epsilon:g}) times its own; scales by greedy search from 1, step {search.step:g}, "
        f"divided by ten {search.refinements} times. After Li and others, Exploring the cloud of feature "
        "interaction scores in a Rashomon set (arXiv 2305.10181)."
    )
    return section("How this was computed", note=text)


def _dots(name: str, effects: Sequence[Effect], hue: int) -> charts.Dots:
    return charts.Dots(
        name,
        [effect.value for effect in effects],
        [effect.value - TWO_ERRORS * effect.error for effect in effects],
        [effect.value + TWO_ERRORS * effect.error for effect in effects],
        hue,
    )


def _wide(markup: str) -> str:
    return f'<div class="figures wide">{markup}</div>'


def _title(pair: Pair) -> str:
    return f"{pair.one} × {pair.other}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
