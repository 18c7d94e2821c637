"""The Flower app of examples/flower learns the same weights as `labkit.outlook.federated`, simulated and deployed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from labkit import federated

pytestmark = pytest.mark.slow

pytest.importorskip("flwr")
ROOT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent  # of the environment that runs the tests
RAY_GAVE_UP = "The current node timed out during startup"  # it cannot be told to wait longer
PATIENCE = 240  # seconds; a busy machine takes a minute


def learned(clients: int, rounds: int) -> torch.Tensor:
    """What the app should learn, computed in this process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    pixels, digits = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    everybody = [federated.Client(inputs[mine], targets[mine]) for mine in federated.iid_split(len(digits), clients)]
    start = federated.weights_of(model)
    *_, final = federated.fedavg(everybody, start, model, rounds=rounds, epochs=5, batch_size=32, learning_rate=0.1)
    assert (final.weights - start).abs().max() > 0.05
    return final.weights


@contextmanager
def running(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A program in the background, ended at exit with every process that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            children = psutil.Process(process.pid).children(recursive=True)  # some lead sessions of their own
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for child in [process, *children]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.mark.parametrize(("theirs", "ours"), [("FedAvg", federated.average), ("FedMedian", federated.median)])
def test_flower_combines_answers_as_we_do(theirs: str, ours: Callable[..., torch.Tensor]) -> None:
    from flwr import common
    from flwr.server import strategy

    random, sizes = torch.Generator().manual_seed(0), torch.tensor([5, 40, 12, 23])
    answers = torch.randn(4, 300, generator=random)
    results = [
        (None, common.FitRes(common.Status(common.Code.OK, ""), common.ndarrays_to_parameters([one]), size, {}))
        for one, size in zip(answers.numpy(), sizes.tolist(), strict=True)
    ]
    found, _ = getattr(strategy, theirs)().aggregate_fit(1, results, [])
    (found,) = map(torch.tensor, common.parameters_to_ndarrays(found))
    torch.testing.assert_close(found, ours(answers, sizes), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("simulated", "rounds"), [(True, 2), (False, 1)], ids=["simulation", "server and two clients"])
def test_flower_learns_the_same_weights(tmp_path: Path, simulated: bool, rounds: int) -> None:
    port, *others = free_ports(3)
    (tmp_path / "config.toml").write_text(
        f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    found = tmp_path / "found.npy"
    order = ["run", "examples/flower", "test", "--stream", "--run-config", f"rounds={rounds} save-to='{found}'"]
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            log = tmp_path / f"{name}-{arguments[-1]}.log"
            command = [str(COMMANDS / name), "--insecure", *arguments]
            stack.enter_context(running(*command, environment=environment, log=log))

        server = ["--disable-runtime-dependency-installation", "--port", str(port)]
        start("flower-superlink", *(["--simulation"] if simulated else []), *server)
        wait_for(port)
        if simulated:
            order += ["--federation-config", "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=1"]
        else:
            for number, other in enumerate(others):
                config = f"partition-id={number} num-partitions=2"
                where = ["--superlink", f"127.0.0.1:{port}", "--port", str(other)]
                start("flower-supernode", *where, "--node-config", config)
        command = [str(COMMANDS / "flwr"), *order]
        for _ in range(3):
            done = subprocess.run(
                command, cwd=ROOT, env=environment, timeout=PATIENCE, capture_output=True, text=True, check=False
            )
            if not (too_slow := RAY_GAVE_UP in done.stdout):
                break
    if too_slow:
        pytest.skip("this machine is too busy: Ray gives up when it has not started after 30 s")
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in tmp_path.glob("*.log"))
    assert found.exists(), done.stdout[-4000:] + done.stderr[-2000:] + logs
    torch.testing.assert_close(torch.tensor(np.load(found)), learned(2, rounds), rtol=0, atol=1e-5)
