"""Teaches a pruned encoder back from its dense self. See README.md.

    python bert/recover --teacher MODEL --pruned PRUNED --texts TEXTS --out RECOVERED --steps 3000
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="recover", description="Teach a pruned encoder back from its dense self.")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the dense checkpoint")
    parser.add_argument("--pruned", type=Path, required=True, help="folder of the pruned one: its zeros stay zero")
    parser.add_argument("--texts", type=Path, required=True, help="folder that bert/fetch_texts.sh wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint; beside it OUT.state, to go on from")
    parser.add_argument("--steps", type=int, default=3000, help="in all, those of earlier calls included")
    parser.add_argument("--rate", type=float, default=3e-4, help="the highest rate of learning")
    parser.add_argument("--tokens", type=int, default=2048, help="padded tokens of a step")
    parser.add_argument("--texts-of-domain", type=int, default=40_000, help="at most so many; tokenizing them takes half a minute")
    parser.add_argument("--no-int8", action="store_true", help="teach the model for f32 alone: without INT8 in the loop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure-every", type=float, default=10.0, help="minutes between measurements on held-out texts; 0 is never")
    parser.add_argument("--measure-texts", type=int, default=48, help="of each domain")
    parser.add_argument("--compiled", type=Path, help="folder where compiled programs are kept for the next call")
    parser.add_argument("--resume", action="store_true", help="go on from OUT.state")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    # Threads are set before JAX is loaded, which takes as many as there are cores to run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

    import jax
    import numpy as np
    from tokenizers import Tokenizer

    import checkpoint
    import texts
    from train import Options, Trainer

    state = options.out.with_name(options.out.name + ".state")
    if options.compiled:
        jax.config.update("jax_compilation_cache_dir", str(options.compiled))
    if not options.resume and (state.exists() or options.out.exists()):
        print(f"{state} or {options.out} is there: go on from it with --resume, or name another --out", file=sys.stderr)
        return 1
    config = checkpoint.read_config(options.teacher)
    chosen = Options(options.steps, options.rate, options.tokens, options.texts_of_domain, not options.no_int8, options.seed)
    trainer = Trainer(config, checkpoint.read_tensors(options.teacher), checkpoint.read_tensors(options.pruned), chosen, state)
    if options.resume:
        trainer.resume()

    tokenizer = Tokenizer.from_file(str(options.teacher / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    corpus = texts.read_corpus(options.texts, options.texts_of_domain, tokenizer)
    held_out = {
        name: texts.encode(tokenizer, texts.read_lines(path, options.measure_texts), texts.LENGTHS[-1])
        for name, path in texts.held_out_files(options.texts).items()
    }
    print(f"{len(corpus.texts)} texts to learn from, {trainer.progress.step} steps done", flush=True)

    def measure() -> None:
        if not options.measure_every:
            return
        found = {name: trainer.cosines(encoded).mean() for name, encoded in held_out.items()}
        print(f"step {trainer.progress.step} cosines:", " ".join(f"{n} {c:.3f}" for n, c in found.items()), flush=True)

    stopped = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.append(True))
    measure()
    parts, measured, seen = [], time.monotonic(), time.monotonic()
    while trainer.progress.step < options.steps and not stopped:
        # Each step draws from a generator of its own, so that a training that goes on draws what an unbroken one would.
        chance = np.random.default_rng([options.seed, trainer.progress.step])
        parts.append(trainer.step(texts.batch(corpus, options.tokens, chance)))
        if len(parts) == 10:
            cosine, similarity, hidden = np.mean(parts, axis=0)
            progress, parts = trainer.progress, []
            print(
                f"step {progress.step} of {options.steps}: 1-cosine {cosine:.4f} similarity {similarity:.4f} hidden {hidden:.4f}"
                f" {progress.tokens / progress.seconds:.0f} tokens/s, {progress.processor:.0f} s of processor",
                flush=True,
            )
        if time.monotonic() - seen > 120:
            trainer.save()
            seen = time.monotonic()
        if options.measure_every and time.monotonic() - measured > 60 * options.measure_every:
            measure()
            measured = time.monotonic()
    trainer.save()
    if not stopped:
        measure()
    checkpoint.write(trainer.tensors(), options.teacher, options.out)
    print(f"{options.out} is written; " + ("go on with --resume" if stopped else "done"), flush=True)
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
