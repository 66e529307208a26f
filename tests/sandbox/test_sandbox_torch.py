"""What jobs are made of runs inside: torch with loader workers, pandas, pyarrow, duckdb."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sandbox import Limits, Report, Runtime, SessionSpec, open_session

JOB = """
import torch, duckdb, numpy, pandas, pyarrow.parquet
from torch.utils.data import DataLoader, TensorDataset

def main():
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters())
    data = TensorDataset(torch.randn(64, 8), torch.randn(64, 1))
    for x, y in DataLoader(data, batch_size=16, num_workers=2):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    frame = pandas.DataFrame({"a": numpy.arange(1000), "t": pandas.date_range("2024-01-01", periods=1000)})
    frame.to_parquet("/tmp/a.parquet")
    print(len(pyarrow.parquet.read_table("/tmp/a.parquet")))
    print(duckdb.sql("select sum(a) from '/tmp/a.parquet'").fetchall()[0][0])
    print(bool(torch.isfinite(loss)))
    print(torch.backends.cpu.get_cpu_capability())

main()
"""


def test_training_with_workers(machine: Report) -> None:
    found = importlib.util.find_spec("torch")
    missing = [name for name in ("torch", "duckdb", "pandas", "pyarrow") if importlib.util.find_spec(name) is None]
    if found is None or found.origin is None or missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    packages = Path(found.origin).parents[1]
    if packages.name != "site-packages":
        pytest.skip("torch is not in a site-packages directory")
    import torch

    spec = SessionSpec(
        Runtime(packages.parent, ""), ("-c", JOB), env={"OMP_NUM_THREADS": "1"}, limits=Limits(wall_seconds=120)
    )
    with open_session(spec) as session:
        ending = session.wait(150)
        assert ending.exit_code == 0, session.stderr().decode()[-2000:]
        lines = session.stdout().decode().split()
    assert lines == ["1000", "499500", "True", torch.backends.cpu.get_cpu_capability()]
