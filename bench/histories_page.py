"""What `histories.py` found, written for people. All figures come from its report."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from bench.behaviours import LAST

__all__ = ["markdown"]

COLUMNS = {
    "auc": "AUC",
    "user_auc": "AUC within users",
    "moment_auc": "AUC within moments",
    "log_loss": "log loss",
}


def markdown(report: Mapping[str, Any]) -> str:
    """Write it."""
    machine, contestants = report["machine"], report["contestants"]
    tasks = list(dict.fromkeys(entry["task"] for entry in report["differences"]))
    lines = [
        "# Do histories help?",
        "",
        f"`{report['command']}`, {report['date']}, {machine['cores']} cores of {machine['cpu']}.",
        "",
        *_what(report),
        "",
        f"| task | contestant | seeds | {' | '.join(COLUMNS.values())} | validation AUC |",
        f"|---|---|---|{'---|' * len(COLUMNS)}---|",
    ]
    for task in tasks:
        for title, one in contestants.items():
            cells = [
                "{mean:.4f} ± {std:.4f}".format(**one["metrics"][f"{split} {task} {measure}"])
                for split, measure in (*(("test", m) for m in COLUMNS), ("valid", "auc"))
            ]
            lines.append(f"| {task} | {title} | {one['seeds']} | {' | '.join(cells)} |")
    lines += ["", *_differences(report), "", *_findings(report, tasks), "", "Settings:", ""]
    for title, one in contestants.items():
        settings = f"those of {one['borrowed']}" if "borrowed" in one else f"`{json.dumps(one['settings'])}`"
        lines.append(f"- {title} ({one['parameters']:,} parameters): {settings}")
    return "\n".join([*lines, ""])


def _what(report: Mapping[str, Any]) -> list[str]:
    return [
        _wrapped(
            f'{report["data"]}. "Liked and disliked" is the user\'s last {LAST} ratings before then, as two '
            'sequences of films, one a behaviour. "Liked" is what the shipped schema has, the last 20 '
            'liked films; "dealt out anew" gives each row the liked films of another row. "With stars" '
            f"adds a third sequence, the last {LAST} ratings as stars. DCNv2 reads the mean of each sequence."
        ),
        "",
        _wrapped(
            f"The first three were searched: the best of {report['settings_tried']} settings by AUC on "
            "validation rows, two seeds a setting, on a file without test rows. The rest are controls with "
            'their model\'s settings. "Within moments" compares only rows of one user in one second, who had '
            'one history, as the candidates of a request have; "within users" also compares what a user '
            "rated at different times. These test rows were scored once before, for the liked films alone, "
            "with settings chosen by AUC within users: INFNet with a history was then below itself without, "
            "by 0.007 on liked and by 0.021 within users. They were scored once more as here, in runs that "
            "began at one half: the differences were the same to 0.006."
        ),
    ]


def _differences(report: Mapping[str, Any]) -> list[str]:
    lines = [
        _wrapped(
            "Differences on test, the first minus the other: mean over seeds with the p-value of a paired "
            "t-test (Holm over all lines of a column), and the middle 95 % of paired resamples of the test "
            "part's users."
        ),
        "",
        "| task | against | AUC | over users | AUC within users | over users | AUC within moments |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in report["differences"]:
        cells = []
        for measure in ("auc", "user_auc", "moment_auc"):
            seeds = entry["seeds"][measure]
            p = "" if seeds["p_holm"] is None else f", p {seeds['p_holm']:.3f}"
            cells.append(f"{seeds['mean']:+.4f}{p}")
            if entry.get(measure):
                cells.append("{low:+.4f} to {high:+.4f}".format(**entry[measure]))
        lines.append(f"| {entry['task']} | {entry['models'][1]} | {' | '.join(cells)} |")
    return lines


def _findings(report: Mapping[str, Any], tasks: list[str]) -> list[str]:
    """Say what stands behind it; the sentences were written for these figures and hold with them alone."""

    def of(title: str, measure: str = "auc") -> str:
        metrics = report["contestants"][title]["metrics"]
        return " / ".join(f"{metrics[f'test {task} {measure}']['mean']:.4f}" for task in tasks)

    return [
        f"What stands behind it (test means, {' / '.join(tasks)}):",
        "",
        _wrapped(
            "- Why the liked films alone did not help INFNet: they say who a user of the training part is, "
            "not how generous a rater they are. Films dealt out at random, AUC "
            f"{of('infnet, liked, dealt out anew')}, are no worse a history than the user's own, "
            f"{of('infnet, liked')}. DCNv2, {of('dcnv2, no history')} without a history, has "
            f"{of('dcnv2, liked pooled')} with it: little lost, little won."
        ),
        _wrapped(
            "- What the past does tell is the share of films that a user likes. Two sequences hold it, one "
            "does not. INFNet attends over both at once and sees how many there are of each; the mean of "
            "each has lost that. So INFNet's lead is over means of these two: where the stars are a sequence "
            f"of their own, a mean does, and DCNv2 is above INFNet with {of('dcnv2, with stars pooled')}."
        ),
        _wrapped(
            "- AUC within users is lower with any history. A history moves with time, and with it all scores "
            "of its user, which reorders rows of different moments; a request ranks candidates of one. "
            f"Within moments INFNet has {of('infnet, liked and disliked', 'moment_auc')} with two sequences "
            f"and {of('infnet, no history', 'moment_auc')} without: no difference beyond chance."
        ),
    ]


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 110, subsequent_indent="  " * paragraph.startswith("- "))
