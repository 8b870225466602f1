"""INFNet learns what only a history can tell, in both versions."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from rankd_contract.schema_file import parse_schema
from rankd_contract.signature import ROW
from rankd_training.models.infnet import INFNet
from rankd_training.models.infnet_config import INFNetConfig

SCHEMA = parse_schema("""
rankd_schema: 1
name: tastes
views:
  - {name: user, entity: user, key: u, fields: [{name: liked, kind: sequence, shares: film, max_length: 6}]}
  - {name: item, entity: item, key: i, fields: [{name: film, kind: categorical, dtype: int64, hash: 40}]}
tasks: [{name: click}]
""")
NUM_TASTES, FILMS_EACH = 4, 10


def rows(count: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Users who like the films of one taste, up to six known, and films of any: a click is a match."""

    def films(taste: Tensor) -> Tensor:
        return 2 + taste * FILMS_EACH + torch.randint(0, FILMS_EACH, taste.shape, generator=generator)

    user_N, item_N = (torch.randint(0, NUM_TASTES, (count,), generator=generator) for _ in range(2))
    known_N1 = torch.randint(1, 7, (count, 1), generator=generator)
    history_NL = films(user_N.unsqueeze(1).expand(-1, 6)) * (torch.arange(6) < known_N1)
    features = {
        "in_user_ids": history_NL.int(),
        "in_item_ids": films(item_N).unsqueeze(1).int(),
        ROW: torch.arange(count),
    }
    return features, (user_N == item_N).float()


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_a_match_of_film_and_history_is_learned(variant: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = INFNet(SCHEMA, INFNetConfig(variant=variant, dropout=0.0))  # type: ignore[arg-type]  # one of the two
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        features, label_N = rows(256, generator)
        loss = functional.binary_cross_entropy_with_logits(model(features)[:, 0], label_N)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
    features, label_N = rows(2000, generator)
    unknown = {**features, "in_user_ids": torch.zeros_like(features["in_user_ids"])}
    with torch.no_grad():
        auc, blind = (roc_auc_score(label_N, model.eval()(given)[:, 0]) for given in (features, unknown))
    assert auc > 0.95
    assert 0.4 < blind < 0.6
