"""What does a mill gain? One architecture and one budget of epochs: each mill alone, pooled, federated.

    python -m examples.plate_mills.compare --seed 1
    python -m examples.plate_mills.compare --data DIR --model model.safetensors

Each model is judged on the unseen plates of ALL mills. Without ``--model`` the federated row is federated averaging of
the app's own training function in this process, with nothing protected: right for a figure, not for a consortium.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from .app.rolling import training
from .app.rolling.model import RollPressure, features, new_model
from .app.rolling.training import Schedule, Score
from .mills import MILLS
from .simulate import simulate_mill

Arrays = dict[str, npt.NDArray[np.float32]]

CONFIG = tomllib.loads((Path(__file__).parent / "app" / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"][
    "app"
]["config"]
MOMENTUM = float(CONFIG["server-momentum"])
SCHEDULE = Schedule(CONFIG["num-server-rounds"], CONFIG["local-epochs"], CONFIG["lr"], CONFIG["batch-size"])


def schedule_of(rounds: int | None) -> Schedule:
    """The app's schedule, with another number of rounds where one is given: one budget of epochs for whoever is compared."""
    return SCHEDULE if rounds is None else replace(SCHEDULE, rounds=rounds)


def to_arrays(model: RollPressure) -> Arrays:
    """Return the model's weights by name, as copies."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def to_model(arrays: Mapping[str, npt.NDArray[np.floating]]) -> RollPressure:
    """Return a model with these weights.

    Raises:
        RuntimeError: names or shapes are not this model's.
    """
    model = RollPressure()
    model.load_state_dict({name: torch.tensor(np.asarray(a, dtype=np.float32)) for name, a in arrays.items()})
    return model


def load_arrays(path: Path) -> Arrays:
    """Return the weights stored in a safetensors file."""
    from safetensors.numpy import load_file

    return dict(load_file(path))


def train_alone(frame: pd.DataFrame, schedule: Schedule = SCHEDULE, seed: int = 1) -> Arrays:
    """Return a model trained on the training plates of one mill, with the epochs and rates of the federated run.

    Inputs that never vary at this mill are taken out of its model, as its engineers would: otherwise the network's
    random first weights would speak for elements the mill has never seen, and the mill would look worse than it is.
    """
    passes, _ = training.split(frame)
    model = new_model(seed)
    for round_ in range(1, schedule.rounds + 1):
        training.train(model, passes, schedule, round_, seed)
    return _without_constant_inputs(to_arrays(model), features(passes))


def _without_constant_inputs(arrays: Arrays, seen: npt.NDArray[np.float32]) -> Arrays:
    """Return weights that give the same outputs on the rows seen and ignore the inputs that were constant there."""
    constant = np.ptp(seen, axis=0) == 0.0
    first = arrays["layers.0.weight"]
    bias = arrays["layers.0.bias"] + first[:, constant] @ seen[0, constant]
    return arrays | {"layers.0.weight": np.where(constant, np.float32(0.0), first), "layers.0.bias": bias}


def train_pooled(frames: Sequence[pd.DataFrame], schedule: Schedule = SCHEDULE, seed: int = 1) -> Arrays:
    """Return a model trained on all training plates in one place: what no consortium may do, as the upper mark."""
    passes = pd.concat([training.split(frame)[0] for frame in frames], ignore_index=True)
    model = new_model(seed)
    for round_ in range(1, schedule.rounds + 1):
        training.train(model, passes, schedule, round_, seed)
    return to_arrays(model)


def average_in_process(frames: Sequence[pd.DataFrame], schedule: Schedule = SCHEDULE, seed: int = 1) -> Arrays:
    """Return the model of federated averaging with server momentum, as the app's strategy computes it.

    All it takes of the mills is the mean of their changes in each round, weighted by their rows.
    """
    parts = [training.split(frame)[0] for frame in frames]
    weights = np.array([len(frame) for frame in frames], dtype=np.float64)
    weights = weights / weights.sum()
    current = to_arrays(new_model(seed))
    velocity = {name: np.zeros(array.shape, dtype=np.float64) for name, array in current.items()}
    for round_ in range(1, schedule.rounds + 1):
        velocity = {name: MOMENTUM * array for name, array in velocity.items()}
        for weight, passes in zip(weights, parts, strict=True):
            model = to_model(current)
            training.train(model, passes, schedule, round_, seed)
            for name, array in to_arrays(model).items():
                velocity[name] += weight * (array.astype(np.float64) - current[name])
        current = {name: (array + velocity[name]).astype(np.float32) for name, array in current.items()}
    return current


def evaluate(arrays: Mapping[str, npt.NDArray[np.floating]], frame: pd.DataFrame) -> Score:
    """Return (share within 10 %, RMSE in kN, rows) of a model on the unseen plates of a frame."""
    _, unseen = training.split(frame)
    return training.evaluate(to_model(arrays), unseen)


def together(scores: Sequence[Score]) -> Score:
    """Return the score over the rows of several frames taken as one."""
    n = sum(score.n for score in scores)
    share = sum(score.share * score.n for score in scores) / n
    return Score(share, float(np.sqrt(sum(score.rmse**2 * score.n for score in scores) / n)), n)


def compare(
    frames: Mapping[str, pd.DataFrame], federated: Arrays | None = None, seed: int = 1
) -> dict[str, list[Score]]:
    """Return, for each model, its scores on each mill's unseen plates and, last, on all of them together."""
    every = list(frames.values())
    models = {f"mill {code} alone": train_alone(frame, seed=seed) for code, frame in frames.items()}
    models["pooled"] = train_pooled(every, seed=seed)
    models["federated"] = average_in_process(every, seed=seed) if federated is None else federated
    table = {}
    for name, arrays in models.items():
        scores = [evaluate(arrays, frame) for frame in every]
        table[name] = [*scores, together(scores)]
    return table


def render(table: Mapping[str, Sequence[Score]], codes: Sequence[str]) -> str:
    """Return the table as text: share within 10 % on each mill's unseen plates, then on all, then the RMSE on all."""
    lines = [f"{'trained':<14}" + "".join(f"{'on ' + code:>9}" for code in [*codes, "all"]) + f"{'RMSE kN':>10}"]
    for name, scores in table.items():
        lines.append(f"{name:<14}" + "".join(f"{s.share:>9.1%}" for s in scores) + f"{scores[-1].rmse:>10.0f}")
    return "\n".join(lines)


def load_frames(directory: Path | None, seed: int) -> dict[str, pd.DataFrame]:
    """Return each mill's passes: from ``mill_?.parquet`` in a directory, or simulated on the spot."""
    if directory is None:
        return {code: pd.DataFrame(simulate_mill(code, seed)) for code in MILLS}
    return {path.stem.removeprefix("mill_"): pd.read_parquet(path) for path in sorted(directory.glob("mill_?.parquet"))}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the table on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plate_mills.compare", description="Each mill alone, pooled and federated."
    )
    parser.add_argument("--seed", type=int, default=1, help="of the simulated records")
    parser.add_argument("--data", type=Path, help="directory with mill_?.parquet instead of simulating")
    parser.add_argument("--model", type=Path, help="federated model as safetensors")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    frames = load_frames(chosen.data, chosen.seed)
    if not frames:
        parser.error(f"no mill_?.parquet in {chosen.data}")
    federated = None if chosen.model is None else load_arrays(chosen.model)
    sys.stderr.write("simulated records; share of unseen passes predicted within 10 %\n")
    sys.stdout.write(render(compare(frames, federated), list(frames)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
