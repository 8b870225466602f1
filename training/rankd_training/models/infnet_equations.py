"""INFNet as its equations are printed, every token on every candidate's row: the twin in its tests.

Reads the weights of an `INFNet`; nothing is split, shared between candidates or left out but what no logit
reads. Legend as in `infnet.py`: groups C, S, T and their hubs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rankd_contract.signature import ROW
from rankd_training.models.infnet import INFNet

__all__ = ["equations", "over_tokens"]


def equations(model: INFNet, features: Mapping[str, Tensor]) -> Tensor:
    """Inputs by signature name -> logits [N, T], with dropout off."""
    return over_tokens(model, *_tokens(model, features))


def over_tokens(model: INFNet, c: Tensor, s: Tensor, present: Tensor) -> Tensor:
    """Every candidate's C [N, M, E], S [N, L, E] and which of S are present [N, L] -> logits [N, T]."""
    config = model.config
    num, width = c.shape[0], config.embedding_width
    t = model.task_tokens_TE.expand(num, -1, -1)
    shared = model.shared_tokens_HE.expand(num, -1, -1)
    c_hubs = s_hubs = shared  # not read where the model has none
    if model.field_hubs is not None:  # C~(0) = reshape( MLP( flatten C ) )
        c_hubs = _field_hubs(model, c).reshape(num, -1, width)
    if model.sequence_hubs is not None:
        s_hubs = _sequence_hubs(model, s, present)

    if config.variant == "v2":
        t = torch.cat([t, shared], dim=1)
    t_hubs = shared
    for block in model.blocks:
        b: Any = block
        groups = {"C": (c, None), "S": (s, present), "T": (t, None)}
        present_groups = {k: v for k, v in groups.items() if v[0].shape[1]}
        own = config.variant == "v2"
        sources = {x: [v for k, v in present_groups.items() if own or k != x] for x in groups}

        if config.variant == "v2":
            t_hubs = _aggregated(b.tasks.aggregate, t, sources["T"])
            t = _bgu(b.tasks.gate, t_hubs, t_hubs)
        else:
            old, t_hubs = t_hubs, _updated(b.tasks.aggregate, t_hubs, sources["T"])  # T~'
            t_hat = _aggregated(b.task_flow, t, sources["T"])  # T^
            t = _pgu(b.tasks.gate, t_hat, t_hubs if config.gate_source == "updated" else old)
        gated = _bgu if config.variant == "v2" else _pgu
        if b.fields is not None:
            old, c_hubs = c_hubs, _updated(b.fields.aggregate, c_hubs, sources["C"])  # C~'
            c = gated(b.fields.gate, c, c_hubs if config.gate_source == "updated" else old)
        if b.sequences is not None:
            old, s_hubs = s_hubs, _updated(b.sequences.aggregate, s_hubs, sources["S"])  # S~'
            s = gated(b.sequences.gate, s, s_hubs if config.gate_source == "updated" else old)
            s = s * present[:, :, None]
    logits = [head(t[:, i]) for i, head in enumerate(model.heads)]  # y_i = sigmoid( MLP_i( T_i ) )
    return torch.cat(logits, dim=1)


def _tokens(model: INFNet, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """C [N, M, E], S [N, L, E] and which of S are present [N, L]."""
    width, num = model.config.embedding_width, len(features[ROW])
    c, s, present = [], [torch.zeros(num, 0, width)], [torch.zeros(num, 0)]
    positions = list(model.positions)
    for side, row_N in zip(model.embedding.tokens(features), (features[ROW], torch.arange(num)), strict=True):
        if side.slots_RSE is not None:
            c.append(side.slots_RSE[row_N])
        if side.sequence_RLE is not None and side.present_RL is not None:
            x = side.sequence_RLE + (positions.pop(0) if positions else 0.0)
            s.append((x * side.present_RL[:, :, None])[row_N])
            present.append(side.present_RL[row_N])
    return torch.cat(c, dim=1), torch.cat(s, dim=1), torch.cat(present, dim=1)


def _field_hubs(model: INFNet, c: Tensor) -> Tensor:
    hubs: Any = model.field_hubs
    x, first = c.flatten(1), hubs.first
    x = first(x) if isinstance(first, torch.nn.Linear) else x @ first.weight_IO + first.bias_O
    if hubs.last is not None:
        x = hubs.last(hubs.inner(torch.relu(x)))
    out: Tensor = x
    return out


def _sequence_hubs(model: INFNet, s: Tensor, present: Tensor) -> Tensor:
    hubs: Any = model.sequence_hubs
    lengths = [length for of_side in hubs.lengths for length in of_side]
    found = []
    for a, (x, here) in enumerate(
        zip(torch.split(s, lengths, 1), torch.split(present, lengths, 1), strict=True)
    ):
        if hubs.project is None:  # the mean of a type's own MLP over its items
            items = hubs.prototypes[a](x) * here[:, :, None]
            found.append(items.sum(1) / here.sum(1).clamp(min=1)[:, None])
        else:  # S~_a = sum over t of phi( s_at )
            found.append((hubs.project(x) * here[:, :, None]).sum(1))
    extra = [] if hubs.extra_XE is None else [row.expand(len(s), -1) for row in hubs.extra_XE]
    return torch.stack([*found, *extra], dim=1)


def _updated(flow: Any, hubs: Tensor, sources: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    return hubs if flow is None else _aggregated(flow, hubs, sources)  # where no gate reads them


def _aggregated(flow: Any, x: Tensor, sources: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    """LN( x + sum of CA ) or, fused, LN( x + Linear( concat of CA ) )."""
    said = [_attended(a, x, *source) for a, source in zip(flow.attentions, sources, strict=True)]
    if flow.fusion_IO is None:
        y = torch.stack(said).sum(0)
    else:
        y = torch.cat(said, dim=2) @ flow.fusion_IO + flow.fusion_O
    return y if flow.norm is None else flow.norm(x + y)


def _attended(a: Any, x: Tensor, y: Tensor, present: Tensor | None) -> Tensor:
    """softmax( Q Wq (K Wk)^T / sqrt(d_k) ) (V Wv), head by head."""
    heads = [m(z).chunk(a.num_heads, dim=2) for m, z in ((a.query, x), (a.key, y), (a.value, y))]
    found = []
    for q, k, v in zip(*heads, strict=True):
        score = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
        if present is not None:
            score = score + (present[:, None, :] - 1) * 1e4
        found.append(functional.softmax(score, dim=2) @ v)
    return torch.cat(found, dim=2)


def _pgu(gate: Any, x: Tensor, hubs: Tensor) -> Tensor:
    """PGU(X, P) = X * sigmoid( MLP( flatten P ) )."""
    return x * torch.sigmoid(gate.last(gate.inner(hubs.flatten(1))))[:, None]


def _bgu(gate: Any, x: Tensor, hubs: Tensor) -> Tensor:
    """LN( x + x * sigmoid(alpha) + beta )."""
    alpha, beta = gate.last(gate.inner(hubs.flatten(1)))[:, None].chunk(2, dim=2)
    moved: Tensor = gate.norm(x + x * torch.sigmoid(alpha) + beta)
    return moved
