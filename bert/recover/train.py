"""Steps of training, with masks fixed, and the state that a later call goes on from."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import checkpoint
import losses
import model
import schedule
import texts

FROZEN = ("embeddings.word_embeddings.weight", "embeddings.token_type_embeddings.weight")

# Parts of the rate. The transform begins at nothing beside the identity, and is dense: at the whole rate it is noise at first.
RATES = {model.TRANSFORM: 0.1}


@dataclass(frozen=True)
class Options:
    steps: int
    rate: float
    tokens: int
    texts: int
    int8: bool  # whether the pruned model's products are of INT8
    seed: int


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0
    processor: float = 0.0  # seconds of all threads, which others that share the machine take nothing from
    tokens: int = 0


class Trainer:
    def __init__(self, config: dict, teacher, pruned, options: Options, state: Path):
        self.config, self.options, self.state = config, options, state
        layers = config["num_hidden_layers"]
        self.teacher = model.to_parameters(teacher, layers)
        student = model.to_parameters(pruned, layers)
        student[model.TRANSFORM] = jnp.zeros((config["hidden_size"],) * 2)
        self.masks = {n: jnp.asarray(m.T) for n, m in checkpoint.masks(pruned, layers).items()}
        self.frozen = {n: student.pop(n) for n in FROZEN}
        self.learnt = student
        self.optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b1=0.9, b2=0.98))
        self.moments = self.optimizer.init(student)
        self.progress = Progress()
        self.update = jax.jit(self._update, donate_argnums=(0, 1))
        self.compare = jax.jit(self._compare)

    def _update(self, learnt, moments, rate, teacher, frozen_and_masks, batch):
        frozen, masks = frozen_and_masks
        ids, mask = batch
        wanted, wanted_states = model.encode(teacher, self.config, ids, mask, False)

        def loss(learnt):
            vectors, states = model.encode(frozen | learnt, self.config, ids, mask, self.options.int8)
            return losses.total(vectors, states, wanted, wanted_states, mask)

        slope, parts = jax.grad(loss, has_aux=True)(learnt)
        slope = {n: s * masks[n] if n in masks else s for n, s in slope.items()}
        change, moments = self.optimizer.update(slope, moments)
        return {n: v - rate * RATES.get(n, 1.0) * change[n] for n, v in learnt.items()}, moments, parts

    def _compare(self, student, teacher, ids, mask):
        vectors, _ = model.encode(student, self.config, ids, mask, self.options.int8)
        return (vectors * model.encode(teacher, self.config, ids, mask, False)[0]).sum(-1)

    def parameters(self) -> dict:
        return self.frozen | self.learnt

    def tensors(self) -> dict[str, np.ndarray]:
        return model.to_tensors(self.parameters(), self.config["num_hidden_layers"])

    def step(self, batch) -> np.ndarray:
        """One step; the three parts of the loss before it."""
        began, busy = time.monotonic(), time.process_time()
        rate = self.options.rate * schedule.factor(self.progress.step, self.options.steps)
        arguments = rate, self.teacher, (self.frozen, self.masks), batch
        self.learnt, self.moments, parts = self.update(self.learnt, self.moments, *arguments)
        parts = np.asarray(parts)
        self.progress.step += 1
        self.progress.tokens += int(batch[1].sum())
        self.progress.seconds += time.monotonic() - began
        self.progress.processor += time.process_time() - busy
        return parts

    def save(self) -> None:
        leaves = jax.tree.leaves((self.learnt, self.moments))
        about = {"progress": dataclasses.asdict(self.progress), "options": dataclasses.asdict(self.options)}
        checkpoint.save_state(self.state, {f"{i:04}": np.asarray(leaf) for i, leaf in enumerate(leaves)}, about)

    def resume(self) -> None:
        """Goes on from the saved state. There may be more or fewer steps in all than it was begun with."""
        arrays, about = checkpoint.load_state(self.state)
        began, now = about["options"], dataclasses.asdict(self.options)
        changed = [k for k in now if k != "steps" and began.get(k) != now[k]]
        if changed:
            raise checkpoint.CheckpointError(f"{self.state} was begun with other options: {', '.join(changed)}")
        leaves, tree = jax.tree.flatten((self.learnt, self.moments))
        if [leaf.shape for leaf in leaves] != [arrays[n].shape for n in sorted(arrays)]:
            raise checkpoint.CheckpointError(f"{self.state} is of a model of other shapes")
        self.learnt, self.moments = jax.tree.unflatten(tree, [jnp.asarray(arrays[n]) for n in sorted(arrays)])
        self.progress = Progress(**about["progress"])

    def cosines(self, encoded: list[list[int]], tokens: int = 2048) -> np.ndarray:
        """The cosine of each text's vector with its vector by the whole model."""
        found = np.zeros(len(encoded))
        padded = np.array([texts.padded_length(len(t)) for t in encoded])
        for length in sorted(set(padded.tolist())):
            members, size = np.flatnonzero(padded == length), max(4, tokens // length)
            for at in range(0, len(members), size):
                some = members[at : at + size]
                filled = np.resize(some, size)  # the last batch is filled up, so that its shape is known already
                ids, mask = texts.pad([encoded[i] for i in filled], length)
                cosines = self.compare(self.parameters(), self.teacher, ids, mask)
                found[some] = np.asarray(cosines)[: len(some)]
        return found
