from __future__ import annotations

import os

from rankd_service.workers.board import Board, Cause, Standing


def test_what_one_process_writes_the_others_read() -> None:
    page = Board.file(2)
    mine, theirs = Board(page, 2), Board(page, 2)
    os.close(page)
    mine.seats[1].report(Standing.READY, 7)
    mine.count_restart(Cause.HUNG)
    assert (theirs.seats[1].beat, theirs.connections()) == (1, [0, 7])
    assert theirs.restarts() == {"killed": 0, "signal": 0, "hung": 1, "exited": 0}
    assert theirs.standings() == {"down": 1, "draining": 0, "not_ready": 0, "ready": 1}


def test_a_crash_loop_is_said_in_words() -> None:
    page = Board.file(1)
    board = Board(page, 1)
    os.close(page)
    board.seats[0].failed(Cause.KILLED, 3)
    assert board.missing() == ["worker 0: down (killed 3 times in a row)"]
