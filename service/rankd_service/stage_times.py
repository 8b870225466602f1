"""How long each stage of one request took."""

from __future__ import annotations

from types import TracebackType

from rankd_service.deadline import Clock
from rankd_service.domain import Stage

__all__ = ["StageTimes"]


class StageTimes:
    """Times the stages of one request: `with times(Stage.INFER): ...`. A stage may come in several parts."""

    __slots__ = ("_clock", "_stage", "_started_s", "seconds")

    def __init__(self, clock: Clock) -> None:
        """Start with no stage; stages follow each other and never nest."""
        self._clock, self._stage, self._started_s = clock, Stage.PARSE, 0.0
        self.seconds: dict[Stage, float] = {}

    def __call__(self, stage: Stage) -> StageTimes:
        """Name the stage that begins."""
        self._stage = stage
        return self

    def __enter__(self) -> StageTimes:
        """Start the watch."""
        self._started_s = self._clock.monotonic_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the watch, also where the stage failed: its time was spent all the same."""
        spent_s = self._clock.monotonic_s() - self._started_s
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent_s
