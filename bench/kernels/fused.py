"""The kernels in Triton; importing this needs it. Products are in float32, without TF32.

Legend as in `twins.py`; a program computes one block of the output.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rankd_contract.schema import UNKNOWN

__all__ = ["embedding_stage", "entmax_15", "gated_unit"]

_SMALLEST_PRODUCT = 16  # of tensor cores, along each axis
_STEPS = 5  # of Newton; as many as `entmax.py` takes for up to 128 slots
_MOST_SLOTS = 128


@triton.jit
def _embedding_stage(
    ids, cardinality, start, table, weight, user, slots, out,
    n, num_slots: tl.constexpr, width: tl.constexpr, outs,
    block_n: tl.constexpr, block_e: tl.constexpr, block_g: tl.constexpr, unknown: tl.constexpr,
):  # fmt: skip
    at_n = tl.program_id(0) * block_n + tl.arange(0, block_n)
    at_g = tl.program_id(1) * block_g + tl.arange(0, block_g)
    at_e = tl.arange(0, block_e)
    is_n, is_g, is_e = at_n < n, at_g < outs, at_e < width
    sums = tl.zeros((block_n, block_g), tl.float32) + tl.load(user + at_g, mask=is_g, other=0.0)[None, :]
    for s in range(num_slots):
        given = tl.load(ids + at_n * num_slots + s, mask=is_n, other=0)
        known = (given >= 0) & (given < tl.load(cardinality + s))
        row = (tl.where(known, given, unknown) + tl.load(start + s)).to(
            tl.int64
        )  # a table may pass 2^31 numbers
        both = is_n[:, None] & is_e[None, :]
        slot = tl.load(table + row[:, None] * width + at_e[None, :], mask=both, other=0.0)
        part = tl.load(
            weight + (s * width + at_e[:, None]) * outs + at_g[None, :],
            mask=is_e[:, None] & is_g[None, :],
            other=0.0,
        )
        sums += tl.dot(slot, part, input_precision="ieee")
        if tl.program_id(1) == 0:  # one column of programs writes what all of them read
            tl.store(slots + (at_n[:, None] * num_slots + s) * width + at_e[None, :], slot, mask=both)
    tl.store(out + at_n[:, None] * outs + at_g[None, :], sums, mask=is_n[:, None] & is_g[None, :])


@triton.jit
def _entmax_15(
    score, out, columns, num_slots, block_s: tl.constexpr, block_m: tl.constexpr, steps: tl.constexpr
):
    at_m = tl.program_id(0) * block_m + tl.arange(0, block_m)
    at_s = tl.arange(0, block_s)
    place = at_s[:, None] * columns + at_m[None, :]
    inside = (at_s < num_slots)[:, None] & (at_m < columns)[None, :]
    # What is no slot is far below, so that it takes no part; what is no column stays finite.
    half = tl.load(score + place, mask=inside, other=-1e30) * 0.5
    x = half - tl.max(half, axis=0)[None, :] + 1.0
    tau = tl.zeros((block_m,), tl.float32)
    for _ in range(steps):
        gap = tl.maximum(x - tau[None, :], 0.0)
        square = tl.sum(gap * gap, axis=0)
        tau += (square - tl.sqrt(square)) / tl.sum(gap, axis=0)
    gap = tl.maximum(x - tau[None, :], 0.0)
    tl.store(out + place, gap * gap, mask=inside)


@triton.jit
def _gated_unit(
    token, present, row, gate, weight, bias, out,
    num_tokens, width: tl.constexpr, eps: tl.constexpr, block_t: tl.constexpr, block_e: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    at_t = tl.program_id(1) * block_t + tl.arange(0, block_t)
    at_e = tl.arange(0, block_e)
    is_t, is_e = at_t < num_tokens, at_e < width
    both = is_t[:, None] & is_e[None, :]
    user = tl.load(row + n)
    x = tl.load(token + (user * num_tokens + at_t[:, None]) * width + at_e[None, :], mask=both, other=0.0)
    alpha = tl.load(gate + n * 2 * width + at_e, mask=is_e, other=0.0)
    beta = tl.load(gate + n * 2 * width + width + at_e, mask=is_e, other=0.0)
    moved = x + x * (1.0 / (1.0 + tl.exp(-alpha)))[None, :] + beta[None, :]
    mean = tl.sum(tl.where(both, moved, 0.0), axis=1) / width
    off = tl.where(both, moved - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(off * off, axis=1) / width + eps)
    scale = tl.load(weight + at_e, mask=is_e, other=0.0)
    shift = tl.load(bias + at_e, mask=is_e, other=0.0)
    there = tl.load(present + user * num_tokens + at_t, mask=is_t, other=0.0)
    normal = (off * inverse[:, None] * scale[None, :] + shift[None, :]) * there[:, None]
    tl.store(out + (n * num_tokens + at_t[:, None]) * width + at_e[None, :], normal, mask=both)


def embedding_stage(
    ids_NS: Tensor,
    cardinality_S: Tensor,
    start_S: Tensor,
    table_VE: Tensor,
    weight_SEG: Tensor,
    user_G: Tensor,
) -> tuple[Tensor, Tensor]:
    """As the twin. Ids and starts are int32, the rest float32; all contiguous."""
    n, num_slots = ids_NS.shape
    width, outs = weight_SEG.shape[1:]
    _check(ids_NS, cardinality_S, start_S, table_VE, weight_SEG, user_G)
    slot_NSE = torch.empty(n, num_slots, width, dtype=torch.float32, device=ids_NS.device)
    out_NG = torch.empty(n, outs, dtype=torch.float32, device=ids_NS.device)
    block_n, block_g = 32, 64
    grid = (triton.cdiv(n, block_n), triton.cdiv(outs, block_g))
    sizes: dict[str, Any] = {
        "block_n": block_n,
        "block_e": max(_SMALLEST_PRODUCT, triton.next_power_of_2(width)),
        "block_g": block_g,
        "unknown": UNKNOWN,
    }
    _embedding_stage[grid](
        ids_NS, cardinality_S, start_S, table_VE, weight_SEG, user_G, slot_NSE, out_NG,
        n, num_slots, width, outs, **sizes,
    )  # fmt: skip
    return slot_NSE, out_NG


def entmax_15(score_SNO: Tensor) -> Tensor:
    """As the twin, for up to 128 slots; float32, contiguous."""
    num_slots = len(score_SNO)
    if num_slots > _MOST_SLOTS:
        raise ValueError(
            f"{num_slots} slots: the kernel keeps a column in registers, and takes {_MOST_SLOTS}"
        )
    _check(score_SNO)
    out_SNO, columns, block_m = torch.empty_like(score_SNO), score_SNO[0].numel(), 64
    _entmax_15[triton.cdiv(columns, block_m),](
        score_SNO, out_SNO, columns, num_slots,
        block_s=triton.next_power_of_2(num_slots), block_m=block_m, steps=_STEPS,
    )  # fmt: skip
    return out_SNO


def gated_unit(
    token_RTE: Tensor, present_RT: Tensor, row_N: Tensor, gate_NX: Tensor, weight_E: Tensor, bias_E: Tensor
) -> Tensor:
    """As the twin: the user's tokens are read where they lie, not copied for each candidate."""
    _, num_tokens, width = token_RTE.shape
    _check(token_RTE, present_RT, row_N, gate_NX, weight_E, bias_E)
    out_NTE = torch.empty(len(row_N), num_tokens, width, dtype=torch.float32, device=token_RTE.device)
    block_t = min(32, triton.next_power_of_2(num_tokens))
    _gated_unit[len(row_N), triton.cdiv(num_tokens, block_t)](
        token_RTE, present_RT, row_N, gate_NX, weight_E, bias_E, out_NTE,
        num_tokens, width, 1e-5, block_t=block_t, block_e=triton.next_power_of_2(width),
    )  # fmt: skip
    return out_NTE


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if not tensor.is_contiguous() or tensor.dtype in {torch.float64, torch.float16, torch.bfloat16}:
            raise ValueError(
                f"{tuple(tensor.shape)} {tensor.dtype}: expected contiguous float32 or whole numbers"
            )
