"""Whatever holds the event loop up is seen from outside."""

from __future__ import annotations

import asyncio
import threading

from rankd_service.loop_watch import LoopWatch

PERIOD_S = 0.02


def test_a_loop_that_was_held_up_says_for_how_long_and_goes_on() -> None:
    late_s: list[float] = []

    async def main() -> None:
        watch = LoopWatch(late_s.append, PERIOD_S)
        watch.start()
        threading.Event().wait(10 * PERIOD_S)  # the whole loop stands still
        while len(late_s) < 4:  # noqa: ASYNC110  # what is watched is time itself
            await asyncio.sleep(PERIOD_S)
        watch.stop()
        seen = len(late_s)
        await asyncio.sleep(3 * PERIOD_S)
        assert len(late_s) == seen

    asyncio.run(main())
    assert late_s[0] >= 8 * PERIOD_S
    assert all(late >= 0 for late in late_s)
