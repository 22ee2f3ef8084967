"""Checkpoints: folders as Hugging Face has them, which are read and written, and the state of a training that goes on later."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class CheckpointError(Exception):
    """A checkpoint that is not what was expected."""


def read_config(folder: Path) -> dict:
    config = json.loads((folder / "config.json").read_text())
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{folder / 'config.json'}: expected {key} {value!r}, and it is {config[key]!r}")
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.exists() and not json.loads(pooling.read_text()).get("pooling_mode_mean_tokens"):
        raise CheckpointError(f"{pooling}: expected pooling by the mean of the tokens")
    return config


def linear_names(layers: int) -> list[str]:
    return [f"encoder.layer.{layer}.{name}.weight" for layer in range(layers) for name in LINEAR]


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of model.safetensors as f32, without the prefix `bert.`."""
    path = folder / "model.safetensors"
    if not path.exists():
        raise CheckpointError(f"expected a checkpoint of one file, {path}, and it is not there")
    tensors = {name.removeprefix("bert."): value for name, value in load_file(path).items()}
    return {name: value.astype(np.float32) for name, value in tensors.items() if np.issubdtype(value.dtype, np.floating)}


def masks(tensors: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """1 where a weight of a linear layer is kept, 0 where it is zero, that is pruned."""
    found = {name: (tensors[name] != 0).astype(np.float32) for name in linear_names(layers)}
    if all(mask.all() for mask in found.values()):
        raise CheckpointError("expected a pruned checkpoint, and no weight of its linear layers is zero: see `siskin bert prune`")
    return found


def write(tensors: dict[str, np.ndarray], source: Path, out: Path) -> None:
    """An ordinary checkpoint: the files of `source` with these tensors. Names that `source` gives a prefix keep it."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx"))
    original = load_file(source / "model.safetensors")
    changed = {name: np.ascontiguousarray(tensors.get(name.removeprefix("bert."), value)) for name, value in original.items()}
    save_file(changed, partial / "model.safetensors", metadata={"format": "pt"})
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def save_state(path: Path, arrays: dict[str, np.ndarray], about: dict) -> None:
    """Replaces the file in one step, so that an interruption leaves the old state or the new one."""
    partial = path.with_name(path.name + ".partial")
    save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, partial, metadata={"about": json.dumps(about)})
    os.replace(partial, path)


def load_state(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])
