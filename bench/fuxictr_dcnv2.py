"""Trains FuxiCTR's DCNv2 for one epoch and times it; bench/training_speed.py runs it in that environment.

The network is put together from FuxiCTR's layers (its wheel carries a variant for long sequences only);
loader, training step, optimiser and prediction are FuxiCTR's. Knows nothing of rankd.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.version import __version__
from sklearn.metrics import roc_auc_score
from torch import nn


class DCNv2(BaseModel):
    """Cross network and deep network side by side, one linear layer over both."""

    def __init__(self, features, width, cross_layers, hidden, rate, folder):
        super().__init__(features, verbose=0, model_root=folder, metrics=["AUC"])
        total = width * features.num_fields
        self.embedding_layer = FeatureEmbedding(features, width)
        self.cross = CrossNetV2(total, cross_layers)
        self.deep = MLP_Block(input_dim=total, hidden_units=hidden, hidden_activations="ReLU")
        self.fc = nn.Linear(total + hidden[-1], 1)
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        """Inputs by field name -> probabilities."""
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        joined = torch.cat([self.cross(embedded), self.deep(embedded)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(joined))}


def main():
    """Train, predict, and print one JSON object."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "settings"):
        parser.add_argument(name)
    told = parser.parse_args()
    settings, folder = json.loads(told.settings), Path(told.folder)
    torch.manual_seed(settings["seed"])
    np.random.seed(settings["seed"])
    torch.set_num_threads(settings["threads"])

    features = FeatureMap("bench", str(folder))
    for field in range(settings["fields"]):
        spec = {"source": "", "type": "categorical", "vocab_size": settings["rows"] + 2, "padding_idx": None}
        features.features[f"f{field}"] = spec
    features.labels, features.default_emb_dim = ["label"], settings["width"]
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    train, _, test = RankDataLoader(
        features,
        stage="both",
        train_data=str(folder / "train.npz"),
        valid_data=None,
        test_data=str(folder / "test.npz"),
        batch_size=settings["batch"],
        data_format="npz",
    )
    model = DCNv2(
        features, settings["width"], settings["cross"], settings["hidden"], settings["rate"], str(folder)
    )
    model._max_gradient_norm = 10.0  # what `fit` sets
    model.train()
    step_s, busy_s, began = [], [], time.perf_counter()
    for batch in train:
        started, busy_at = time.perf_counter(), time.process_time()
        model.train_step(batch).item()
        step_s.append(time.perf_counter() - started)
        busy_s.append(time.process_time() - busy_at)
    epoch_s = time.perf_counter() - began
    label = np.load(folder / "test.npz")["label"]
    result = {
        "version": __version__,
        "auc": roc_auc_score(label, model.predict(test)),
        "step_ms": 1000 * float(np.median(step_s)),
        "busy_ms": 1000 * float(np.median(busy_s)),
        "epoch_s": epoch_s,
        "rows": settings["train_rows"],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    sys.stdout.write("RESULT " + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
