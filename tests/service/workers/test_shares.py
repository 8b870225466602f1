"""A worker lets go of connections that had better be another's: few at a time, none too many."""

from __future__ import annotations

import os

import pytest

from rankd_service.workers.board import Board, Standing
from rankd_service.workers.shares import Shares


def board_of(*connections: int) -> Board:
    page = Board.file(len(connections))
    board = Board(page, len(connections))
    os.close(page)
    for seat, number in zip(board.seats, connections, strict=True):
        seat.report(Standing.READY, number)
    return board


def let_go(shares: Shares) -> int:
    shares.look()
    return sum(shares.lets_go() for _ in range(1000))


@pytest.mark.parametrize(
    ("connections", "expected"),
    [
        ((40, 0), 5),  # an eighth at once
        ((5, 0), 1),
        ((2, 0), 1),
        ((1, 0), 0),
        ((21, 19), 0),  # more would go to and fro
        ((24, 20), 2),  # no more than are too many
        ((0, 40), 0),
        ((20, 20, 0), 2),
        ((20, 10, 0), 2),
        ((16,), 0),
    ],
)
def test_who_has_clearly_more_than_another_lets_go_of_some(
    connections: tuple[int, ...], expected: int
) -> None:
    assert let_go(Shares(board_of(*connections), 0)) == expected


@pytest.mark.parametrize("standing", [Standing.DOWN, Standing.DRAINING, Standing.NOT_READY])
def test_nothing_is_let_go_to_one_that_is_not_ready_nor_by_one(standing: Standing) -> None:
    board = board_of(40, 0)
    board.seats[1].report(standing, 0)
    assert let_go(Shares(board, 0)) == 0
    board = board_of(40, 0)
    board.seats[0].report(standing, 40)
    assert let_go(Shares(board, 0)) == 0


def test_nothing_is_let_go_to_one_that_hangs() -> None:
    board = board_of(40, 0)
    shares = Shares(board, 0)
    assert let_go(shares) == 5
    assert let_go(shares) == 0, "its beat stands still"
    board.seats[1].report(Standing.READY, 0)
    assert let_go(shares) == 5
