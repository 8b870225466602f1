"""Scores that the graph calibrates are those that the service makes of the same scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankd_contract.calibration import Calibration, PiecewiseLinear, Platt
from rankd_contract.signature import CALIBRATED, SCORES
from rankd_export.calibrated import CalibratedScores
from rankd_export.errors import ParityFailed
from rankd_export.graph import to_onnx
from rankd_export.parity import compare
from rankd_training.models import registry
from tests.export.requests import random_request
from tests.export.test_graph import MOVIELENS

LINES = PiecewiseLinear((0.0, 0.1, 0.4, 1.0), (0.0, 0.3, 0.3, 0.9))
CURVES = [
    Calibration((LINES, Platt(1.7, -0.4))),
    Calibration((None, PiecewiseLinear((0.2, 0.6), (0.1, 0.8)))),
]


@pytest.mark.parametrize("calibration", CURVES, ids=["lines and Platt", "nothing and a part"])
def test_graph_calibrates_as_the_service_does(calibration: Calibration) -> None:
    torch.manual_seed(0)
    model = registry.build("fm", MOVIELENS, {"embedding_std": 0.5}).eval()
    example = {k: torch.from_numpy(a) for k, a in random_request(MOVIELENS, 6, 3, seed=1).items()}
    graph = to_onnx(model, MOVIELENS, example, calibration=calibration)
    assert [value.name for value in graph.graph.output][-2:] == [SCORES, CALIBRATED]
    requests = [random_request(MOVIELENS, n, users, seed=n) for n, users in ((1, 1), (7, 3), (1000, 1))]
    compare(model, graph, requests, calibration=calibration)
    with pytest.raises(ParityFailed, match="the graph's calibration differs"):
        compare(model, graph, requests, calibration=Calibration((Platt(2.0, 0.0), Platt(1.0, 0.3))))


@pytest.mark.parametrize("calibration", CURVES, ids=["lines and Platt", "nothing and a part"])
def test_the_curves_agree_at_their_ends_and_points(calibration: Calibration) -> None:
    edge_N = np.array([0, 1e-30, 1e-8, 0.1, 0.2, 0.4, 0.5, 0.6, 0.99999, 1], np.float32)
    score_NT = np.stack([edge_N, edge_N[::-1]], axis=1)
    found = CalibratedScores(calibration)(torch.from_numpy(score_NT)).numpy()
    np.testing.assert_allclose(found, calibration(score_NT), atol=1e-7)
