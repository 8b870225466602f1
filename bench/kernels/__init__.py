"""Fused kernels for what a device would otherwise write to memory between operators; none is used by default.

No GPU has run them: they are equal to their twins in Triton's interpreter on a CPU (`tests/kernels`), and
`bench/gpu.py` times them where there is a device. Exported graphs hold none of them.

    pip install triton
    TRITON_INTERPRET=1 pytest tests/kernels      # on a CPU; without the variable, on a GPU
    python bench/gpu.py                          # on a GPU host: as fast as what?

`twins.py` has them as plain torch, `fused.py` in Triton, which compiles them when they are first called.
"""
