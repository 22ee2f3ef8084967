"""The rate of learning over a training."""

import math

WARM_UP = 30  # steps
LEAST = 0.02  # part of the rate that is left at the end


def factor(step: int, done: float) -> float:
    """What the rate is multiplied by, at a step, with a part of the time done: a rise of WARM_UP steps, then half a cosine."""
    falling = LEAST + (1 - LEAST) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return min(1.0, (step + 1) / WARM_UP) * falling
