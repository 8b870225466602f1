from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch

from rankd_contract.signature import LOGITS, SCORES
from rankd_export.graph import to_onnx
from rankd_training.models import registry
from tests.training.fields import mixed_schema, random_inputs


def test_scores_of_rare_events_keep_their_order_and_their_digits() -> None:
    """onnxruntime's own Sigmoid is 0 below -18, and off by a tenth before."""
    torch.manual_seed(0)
    schema = mixed_schema()
    model = registry.build("lr", schema, {"embedding_std": 6.0}).eval()
    with torch.no_grad():
        for bias in model.output_biases():
            bias.fill_(-20.0)
    graph = to_onnx(model, schema, random_inputs(schema, 2, 5))
    session = ort.InferenceSession(graph.SerializeToString())
    request = {name: tensor.numpy() for name, tensor in random_inputs(schema, 1, 400).items()}
    logit_NT, score_NT = session.run([LOGITS, SCORES], request)
    assert logit_NT.min() < -40
    assert logit_NT.max() > -5
    expected_NT = 1 / (1 + np.exp(-logit_NT.astype(np.float64)))
    np.testing.assert_allclose(score_NT, expected_NT, rtol=1e-5)
    for logit_N, score_N in zip(logit_NT.T, score_NT.T, strict=True):
        assert np.all(np.diff(score_N[np.argsort(logit_N)]) >= 0)
        rare_N = logit_N < 0
        assert len(np.unique(score_N[rare_N])) == len(np.unique(logit_N[rare_N]))
