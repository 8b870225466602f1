"""How much of its peak does a service still answer in time under a multiple of it, for a whole minute?

    PYTHONPATH=. python bench/overload.py --out docs/results

One process on a core of its own, 100 candidates and about a millisecond a request; store and callers have the
others. The load is open: requests are sent when they are due, on as many connections as that takes. Goodput
is what was answered in time for each second of processor time that the service had, against that of 16
callers who are never without a request, before and after. What is sent late is the callers' own stall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.serving import made_by
from rankd.load.sender import NOT_SENT
from tests.faults.loaded import DEADLINE_MS, Loaded, N, in_time, ms, serving, share_in_time, statuses

PEAK_S, RECOVERY_S, BY_THEN_S = 5.0, 12.0, 10.0
ANSWERED, REFUSED = 200, 503

console = Console(width=140)


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=float, default=3.0, help="of the peak")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="folder for overload.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankd-") as folder, serving(Path(folder)) as loaded:
        rounds = [measured(loaded, options.times, options.seconds) for _ in range(options.rounds)]
    report = {
        **made_by("overload.py"),
        "candidates": N,
        "deadline_ms": DEADLINE_MS,
        "goodput_to_peak": statistics.median(found["goodput_to_peak"] for found in rounds),
        "rounds": rounds,
    }
    console.print(f"goodput to peak, median of {len(rounds)}: {report['goodput_to_peak']}")
    if options.out:
        (options.out / "overload.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measured(loaded: Loaded, times: float, seconds: float) -> dict[str, Any]:
    """Load it for so long -> what it answered, and how it was afterwards."""
    rate, before = loaded.peak(PEAK_S)
    began_s = loaded.cpu_s()
    outcomes = loaded.send_steadily(times * rate, seconds)
    spent_s = loaded.cpu_s() - began_s
    _, after = loaded.peak(PEAK_S)
    recovered = loaded.send_steadily(0.4 * rate, RECOVERY_S)
    answered_ms = [ms(one) for one in outcomes if one.status == ANSWERED]
    refused_ms = [ms(one) for one in outcomes if one.status == REFUSED]
    late_ms = [1000 * (one.sent_s - one.due_s) for one in outcomes if one.status != NOT_SENT]
    found = {
        "peak_per_s": round(rate),
        "goodput_to_peak": round(len(in_time(outcomes)) / spent_s / ((before + after) / 2), 3),
        "statuses": {str(status): count for status, count in sorted(statuses(outcomes).items())},
        "refused_p50_p99_ms": np.percentile(refused_ms, (50, 99)).round(1).tolist(),
        "answered_p99_ms": round(float(np.percentile(answered_ms, 99)), 1),
        "sent_late_p50_p99_ms": np.percentile(late_ms, (50, 99)).round(1).tolist(),
        "in_time_afterwards": share_in_time(recovered),
        "in_time_from_ten_seconds_after": share_in_time([one for one in recovered if one.due_s > BY_THEN_S]),
    }
    console.print(found)
    return found


if __name__ == "__main__":
    main()
