"""Each fused kernel computes what its twin does: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from bench.kernels import twins

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def fused() -> ModuleType:
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    from bench.kernels import fused as made

    return made


def drawn(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape) * scale).to(DEVICE)


@pytest.mark.parametrize(("n", "slots", "width", "outs"), [(1, 1, 16, 4), (33, 12, 16, 272), (70, 3, 10, 65)])
def test_the_embedding_stage(fused: ModuleType, n: int, slots: int, width: int, outs: int) -> None:
    torch.manual_seed(n)
    sizes = torch.randint(3, 50, (slots,), dtype=torch.int32)
    start = (sizes.cumsum(0) - sizes).int().to(DEVICE)
    ids = torch.randint(-2, 60, (n, slots), dtype=torch.int32).to(DEVICE)  # some are out of bounds
    given = (
        ids,
        sizes.to(DEVICE),
        start,
        drawn(int(sizes.sum()), width),
        drawn(slots, width, outs, scale=0.1),
        drawn(outs),
    )
    for found, expected in zip(fused.embedding_stage(*given), twins.embedding_stage(*given), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("slots", "n", "neurons"), [(1, 3, 5), (2, 1, 1), (20, 7, 64), (39, 5, 33), (128, 2, 3)]
)
def test_entmax(fused: ModuleType, slots: int, n: int, neurons: int) -> None:
    torch.manual_seed(slots)
    score = drawn(slots, n, neurons, scale=3.0)
    found = fused.entmax_15(score)
    torch.testing.assert_close(found, twins.entmax_15(score), atol=2e-6, rtol=0)
    torch.testing.assert_close(found.sum(0), torch.ones(n, neurons, device=DEVICE), atol=1e-5, rtol=0)


def test_entmax_of_more_slots_than_fit_is_refused(fused: ModuleType) -> None:
    with pytest.raises(ValueError, match="129 slots"):
        fused.entmax_15(drawn(129, 1, 1))


@pytest.mark.parametrize(("n", "users", "tokens", "width"), [(1, 1, 1, 16), (9, 2, 100, 16), (5, 5, 33, 10)])
def test_the_gated_unit(fused: ModuleType, n: int, users: int, tokens: int, width: int) -> None:
    torch.manual_seed(n)
    present = (torch.rand(users, tokens) > 0.3).float().to(DEVICE)
    token = drawn(users, tokens, width) * present.unsqueeze(2)
    row = (torch.arange(n) % users).to(DEVICE)
    given = (token, present, row, drawn(n, 2 * width), drawn(width), drawn(width))
    torch.testing.assert_close(fused.gated_unit(*given), twins.gated_unit(*given), atol=1e-5, rtol=1e-5)


def test_numbers_of_another_type_are_refused(fused: ModuleType) -> None:
    with pytest.raises(ValueError, match="expected contiguous float32"):
        fused.entmax_15(drawn(4, 2, 2).half())
    with pytest.raises(ValueError, match="expected contiguous float32"):
        fused.entmax_15(drawn(2, 2, 4).permute(2, 0, 1))


_COMPILE = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bench.kernels import fused

hopper = GPUTarget("cuda", 90, 32)
sizes = {}
for kernel, types, constants in (
    (
        fused._embedding_stage,
        "*i32 *i32 *i32 *fp32 *fp32 *fp32 *fp32 *fp32 i32 - - i32 - - - -",
        {"num_slots": 12, "width": 16, "block_n": 32, "block_e": 16, "block_g": 64, "unknown": 1},
    ),
    (fused._entmax_15, "*fp32 *fp32 i32 i32 - - -", {"block_s": 32, "block_m": 64, "steps": 5}),
    (
        fused._gated_unit,
        "*fp32 *fp32 *i64 *fp32 *fp32 *fp32 *fp32 i32 - - - -",
        {"width": 16, "eps": 1e-5, "block_t": 32, "block_e": 16},
    ),
):
    signature = dict(zip(kernel.arg_names, types.replace("-", "constexpr").split(), strict=True))
    fixed = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=fixed)
    made = triton.compile(source, target=hopper)
    assert "tf32" not in made.asm["ptx"]
    sizes[kernel.__name__] = len(made.asm["cubin"])
print(json.dumps(sizes))
"""


def test_each_compiles_to_machine_code_of_an_h200_on_a_machine_without_one(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs Triton: pip install triton")
    without = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    out = subprocess.run(
        [sys.executable, "-c", _COMPILE],
        env={**without, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    sizes = json.loads(out.stdout)
    assert set(sizes) == {"_embedding_stage", "_entmax_15", "_gated_unit"}
    assert min(sizes.values()) > 1000
