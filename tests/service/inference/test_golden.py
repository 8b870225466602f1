"""What `golden.npz` may hold: recorded requests, and nothing that fills memory or ends in a traceback."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankd_service.errors import BundleRefused
from rankd_service.inference.golden import MAX_BYTES, GoldenError, read_golden
from rankd_service.inference.loader import load_current
from rankd_service.settings_sources import load_settings
from tests.support.bundles import publish_bundle, publish_files_over

ZEROS = bytes(1 << 20)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def header(descr: str = "'<f4'", shape: str = "(1,)", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


def bomb(mebibytes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("r0/x.npy", "w") as entry:
        entry.write(header(shape=f"({mebibytes << 18},)"))
        for _ in range(mebibytes):
            entry.write(ZEROS)
    return buffer.getvalue()


def disguised_bomb(mebibytes: int) -> bytes:
    """A bomb whose directory claims that it unpacks to its header and one number."""
    blob = bytearray(bomb(mebibytes))
    directory = blob.rindex(b"PK\x01\x02")
    struct.pack_into("<I", blob, directory + 24, len(header()) + 4)
    return bytes(blob)


def encrypted() -> bytes:
    blob = bytearray(zipped({"r0/x.npy": header() + bytes(4)}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        blob[blob.rindex(signature) + at] |= 1
    return bytes(blob)


WRONG: dict[str, tuple[bytes, str]] = {
    "no zip": (b"nonsense", "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "a single array": (header() + bytes(4), "cannot be read"),
    "objects": (npz(x=np.array([{}], object)), "holds object"),
    "text": (npz(x=np.array(["a"])), "holds <U1"),
    "records": (npz(x=np.zeros(2, [("a", "f4")])), "holds [('a'"),
    "complex numbers": (npz(x=np.zeros(2, complex)), "holds complex128"),
    "times": (npz(x=np.zeros(2, "M8[s]")), "holds datetime64"),
    "halves": (npz(x=np.zeros(2, np.float16)), "holds float16"),
    "too much": (bomb(65), "unpacks to 65 MiB, at most 64 MiB are read"),
    "a shape beyond memory": (zipped({"x": header(shape="(1000000000000,)")}), "its header speaks of 4000"),
    "a shape beyond int64": (zipped({"x": header(shape="(10**30,)".replace("10**30", "9" * 30))}), "holds 0"),
    "a negative shape": (zipped({"x": header(shape="(-1, -1)") + bytes(4)}), "its header speaks of"),
    "many empty dimensions": (zipped({"x": header(shape="(" + "0," * 99 + ")")}), "cannot be read"),
    "less than its shape": (zipped({"x": header(shape="(9,)") + bytes(4)}), "holds 4 bytes"),
    "more than its shape": (zipped({"x": header() + bytes(44)}), "holds 44 bytes"),
    "no header": (zipped({"x": b"\x93NUMPY"}), "cannot be read"),
    "no magic": (zipped({"x": b"12345678" * 9}), "cannot be read"),
    "a version of its own": (zipped({"x": header(version=b"\x09\x00")}), "format (9, 0)"),
    "a header of nonsense": (zipped({"x": header(descr="[[[")}), "cannot be read"),
    "a deep header": (zipped({"x": header(descr="(" * 5000 + ")" * 5000, version=b"\x02\x00")}), "cannot be"),
    "an empty descr": (zipped({"x": header(descr="()")}), "cannot be read"),
    "encrypted": (encrypted(), "cannot be read"),
    "very many arrays": (zipped({str(n): b"" for n in range(5000)}), "5000 arrays, at most 4096"),
    "cut short": (npz(x=np.arange(900))[:-200], "cannot be read"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_a_file_of_anything_else_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    content, says = WRONG[what]
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    with pytest.raises(GoldenError) as refused:
        read_golden(path)
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.fault("F7")
@pytest.mark.parametrize("what", ["too much", "a shape beyond memory", "disguised"])
def test_a_bomb_is_never_unpacked(what: str, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(disguised_bomb(256) if what == "disguised" else WRONG[what][0])
    tracemalloc.start()
    try:
        with pytest.raises(GoldenError):
            read_golden(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.fault("F7")
def test_a_bundle_with_a_bomb_is_refused_with_the_files_name(tmp_path: Path) -> None:
    publish_files_over(publish_bundle(tmp_path), tmp_path, {"golden.npz": bomb(65)})
    with pytest.raises(BundleRefused, match=r"films version 2: golden\.npz unpacks to 65 MiB"):
        load_current(tmp_path, "films", load_settings(models={"repository": tmp_path}))


def test_requests_up_to_the_limit_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "r0/a": np.arange(6, dtype=np.int64).reshape(2, 3),
        "r0/b": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "r1/a": np.zeros((0, 4), ">f8"),
        "r1/b": np.float64(3),
        "r2/whole": np.zeros((MAX_BYTES >> 3) - 200, np.float64),
    }
    (tmp_path / "golden.npz").write_bytes(npz(**arrays))
    found = read_golden(tmp_path / "golden.npz")
    assert {f"{request}/{name}" for request, by_name in found.items() for name in by_name} == set(arrays)
    for path, array in arrays.items():
        request, _, name = path.partition("/")
        np.testing.assert_array_equal(found[request][name], array)
        assert found[request][name].flags.c_contiguous
        assert found[request][name].dtype.isnative


SOUND = npz(**{"r0/x": np.arange(12, dtype=np.float32), "r1/x": np.arange(4, dtype=np.int64)})


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    blob = bytearray(SOUND)
    for at, byte in damage:
        blob[at] = byte
    path = tmp_path / "golden.npz"
    path.write_bytes(blob)
    try:
        requests = read_golden(path)
    except GoldenError:
        return
    assert all(array.nbytes < 1 << 10 for arrays in requests.values() for array in arrays.values())
