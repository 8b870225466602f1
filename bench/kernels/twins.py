"""What the kernels compute, in plain torch: the truth that they are compared with.

Legend: R user rows, N candidates, S slots, E width, G outputs of the first compression, T tokens, O neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rankd_contract.schema import UNKNOWN
from rankd_training.layers.entmax import entmax_over_slots

__all__ = ["embedding_stage", "entmax_15", "gated_unit"]


def embedding_stage(
    ids_NS: Tensor,
    cardinality_S: Tensor,
    start_S: Tensor,
    table_VE: Tensor,
    weight_SEG: Tensor,
    user_G: Tensor,
) -> tuple[Tensor, Tensor]:
    """MLCC's way in: bound the ids, read their rows, concatenate, compress, add the user's part.

    Returns:
        The slots [N, S, E], which the crosses read, and the compression [N, G].
    """
    known_NS = (ids_NS >= 0) & (ids_NS < cardinality_S)
    rows_NS = torch.where(known_NS, ids_NS, UNKNOWN) + start_S
    slot_NSE = functional.embedding(rows_NS, table_VE)
    return slot_NSE, torch.matmul(slot_NSE.flatten(1), weight_SEG.flatten(0, 1)) + user_G


def entmax_15(score_SNO: Tensor) -> Tensor:
    """Entmax with alpha 1.5 over the slots, as ARM-Net's serving form has it."""
    return entmax_over_slots(score_SNO, 1.5)


def gated_unit(
    token_RTE: Tensor, present_RT: Tensor, row_N: Tensor, gate_NX: Tensor, weight_E: Tensor, bias_E: Tensor
) -> Tensor:
    """INFNet v2's broadcast gate over the tokens of each candidate's user: LN( x + x sigmoid(alpha) + beta ).

    `gate_NX` is alpha and beta side by side, X = 2 E; padding stays zero. -> [N, T, E]
    """
    x_NTE, present_NT = token_RTE.index_select(0, row_N), present_RT.index_select(0, row_N)
    alpha_NE, beta_NE = gate_NX.chunk(2, dim=1)
    moved_NTE = x_NTE + x_NTE * torch.sigmoid(alpha_NE).unsqueeze(1) + beta_NE.unsqueeze(1)
    normal_NTE = functional.layer_norm(moved_NTE, (x_NTE.shape[2],), weight_E, bias_E, eps=1e-5)
    return normal_NTE * present_NT.unsqueeze(2)
