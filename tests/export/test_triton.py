"""A bundle in a Triton repository: the configuration is the graph's, a real server gives its scores."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from rankd_contract.bundle import Bundle
from rankd_contract.signature import SCORES
from rankd_export.errors import TargetRefused
from rankd_export.exporter import export_run
from rankd_export.triton import Backend, write_triton
from tests.rankd.test_cli import rankd
from tests.support.bundles import echo, every_input, publish_bundle
from tests.support.server import free_port
from tests.support.tiny_run import invented_data, tiny_run

TYPES = {"tensor(int32)": "TYPE_INT32", "tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
WIRE = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
TENSOR = re.compile(r'\{ name: "(\w+)" data_type: (\w+) dims: \[ (.*?) \] \}')


@pytest.mark.parametrize("backend", list(Backend))
def test_the_configuration_has_the_graphs_own_inputs_and_outputs(tmp_path: Path, backend: Backend) -> None:
    bundle = publish_bundle(tmp_path / "bundles", graph=every_input)
    written = write_triton(bundle, tmp_path / "repository", backend=backend)
    assert written == tmp_path / "repository" / "films" / "1"
    assert (written / "model.onnx").read_bytes() == bundle.graph.read_bytes()
    config = (written.parent / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in config
    assert f'backend: "{backend.value}"\n' in config
    session = ort.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    of_graph = [
        (node.name, TYPES[node.type], ", ".join(str(d) if isinstance(d, int) else "-1" for d in node.shape))
        for node in (*session.get_inputs(), *session.get_outputs())
    ]
    assert sorted(TENSOR.findall(config)) == sorted(of_graph)


def test_versions_stand_beside_each_other_and_nothing_is_written_over(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first, second = (publish_bundle(tmp_path / "bundles", graph=graph) for graph in (echo, every_input))
    for bundle in (first, second):
        write_triton(bundle, repository)
    assert sorted(p.name for p in (repository / "films").iterdir()) == ["1", "2", "config.pbtxt"]
    assert [p.name for p in repository.iterdir()] == ["films"]
    with pytest.raises(TargetRefused, match="is there already"):
        write_triton(first, repository)
    with pytest.raises(TargetRefused, match="other inputs, outputs or backend; give this one another name"):
        write_triton(publish_bundle(tmp_path / "bundles"), repository, backend=Backend.PYTHON)
    assert sorted(p.name for p in (repository / "films").iterdir()) == ["1", "2", "config.pbtxt"]


def test_the_command_says_what_to_start(tmp_path: Path) -> None:
    publish_bundle(tmp_path / "bundles")
    done = rankd("bundle", "triton", "bundles/films", "--to", "repository", "--name", "shop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "shop version 1" in done.stdout
    assert "tritonserver --model-repository repository" in done.stdout
    assert 'name: "shop"' in (tmp_path / "repository" / "shop" / "config.pbtxt").read_text()
    again = rankd("bundle", "triton", "bundles/films", "--to", "repository", "--name", "shop", cwd=tmp_path)
    assert again.returncode == 1
    assert "never written over" in again.stderr
    wrong = rankd("bundle", "triton", "bundles/films", "--to", "x", "--backend", "tensorrt", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "expected one of onnxruntime, python" in wrong.stderr


def packages() -> Path:
    """The folder of packages of a Python that has a Triton server."""
    python = os.environ.get("TRITON_PYTHON", "")
    if not python:
        pytest.skip(
            "needs a Triton server: python3.11 -m venv X; X/bin/pip install nvidia-pytriton==0.7.0 'numpy<2' "
            "onnxruntime; TRITON_PYTHON=X/bin/python, and Python 3.11's shared library"
        )
    program = "import onnxruntime, pytriton; print(pytriton.__path__[0])"
    return Path(
        subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    ).parent


@contextmanager
def triton(repository: Path, folder: Path) -> Iterator[httpx.Client]:
    """A real server over a repository, with its Python backend only, on loopback."""
    site, port = packages(), free_port()
    home, backends = site / "pytriton" / "tritonserver", folder / "backends"
    shutil.copytree(home / "backends", backends)
    stub = shutil.copy(
        home / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", backends / "python"
    )
    Path(stub).chmod(0o755)
    options = {
        "model-repository": repository,
        "backend-directory": backends,
        "http-address": "127.0.0.1",
        "http-port": port,
        "allow-grpc": "false",
        "allow-metrics": "false",
        "exit-on-error": "false",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(home / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")},
            cwd=site,  # the backend's Python looks for packages here, and reads no PYTHONPATH
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                began_s = time.monotonic()
                while not _answers(client):
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() - began_s < 60, (folder / "log").read_text()
                yield client
        finally:
            process.terminate()
            process.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/live").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def largest_difference(client: httpx.Client, name: str, bundle: Bundle) -> float:
    """Ask a server the recorded requests -> how far its scores are from the recorded ones."""
    worst = 0.0
    with np.load(bundle.golden) as golden:
        for request in {key.partition("/")[0] for key in golden.files}:
            arrays = {s.name: golden[f"{request}/{s.name}"] for s in bundle.manifest.inputs}
            inputs = [
                {"name": k, "shape": a.shape, "datatype": WIRE[a.dtype.name], "data": a.ravel().tolist()}
                for k, a in arrays.items()
            ]
            body = {"inputs": inputs, "outputs": [{"name": SCORES}]}
            answer = client.post(f"/v2/models/{name}/infer", json=body)
            assert answer.status_code == httpx.codes.OK, answer.text
            (output,) = answer.json()["outputs"]
            found = np.array(output["data"], np.float32).reshape(output["shape"])
            expected = golden[f"{request}/{SCORES}"]
            assert found.shape == expected.shape
            worst = max(worst, float(np.abs(found - expected).max()))
    return worst


@pytest.mark.slow
def test_a_real_server_gives_the_recorded_scores(tmp_path: Path) -> None:
    run = tiny_run(invented_data(tmp_path / "data"), tmp_path / "run", "mlcc")
    trained = export_run(run, tmp_path / "bundles")
    made = publish_bundle(tmp_path / "bundles", graph=every_input)
    repository = tmp_path / "repository"
    for bundle in (trained, made):
        write_triton(bundle, repository, backend=Backend.PYTHON)
    write_triton(made, repository, "for_images", Backend.ONNXRUNTIME)
    with triton(repository, tmp_path) as client:
        assert largest_difference(client, "mlcc", trained) <= trained.manifest.golden_tolerance
        assert largest_difference(client, "films", made) <= 1e-6
        described = client.get("/v2/models/mlcc").json()
        assert {i["name"]: i["shape"][1:] for i in described["inputs"]} == {
            s.name: list(s.dims[1:]) for s in trained.manifest.inputs
        }
        known = {one["name"]: one for one in client.post("/v2/repository/index").json()}
    # Its configuration was read and understood; the server at hand has no such backend.
    assert "unable to find backend library for backend 'onnxruntime'" in known["for_images"]["reason"]
