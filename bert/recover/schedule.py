"""The rate of learning over a training."""

WARM_UP = 30  # steps
FALLING = 0.4  # the part of the steps, at the end, over which the rate falls
LEAST = 0.02  # part of the rate that is left then


def factor(step: int, steps: int) -> float:
    """What the rate is multiplied by: it rises over WARM_UP steps, stays, and falls in a straight line at the end.

    Since it stays, a training can be made longer than it was meant to be, from a state before the fall, as if it had been meant so.
    """
    left = (steps - step) / max(1, FALLING * steps)
    return min(1.0, (step + 1) / WARM_UP, LEAST + (1 - LEAST) * left)
