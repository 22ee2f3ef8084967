"""What the rows come to: on how many siskin is ahead, and why it is not on the others."""

import re
from collections import Counter
from typing import NamedTuple

UNKNOWN = "not explained yet"
# Of known reasons: a pattern of the name of a row, one of the peer and its form, and the reason. The first that fits counts.
REASONS = [
    (r"^dense .*, 1 token$", r".", "a single token waits for weights to be loaded, and so does the peer: they are as fast as each other but for noise"),
    (
        r"^dense f32, 768x3072, .* tokens$",
        r".",
        "x and a panel of weights of all 3,072 inputs are most of the second-level cache, so more of them than a peer's is loaded again",
    ),
    (
        r"^dense .* tokens$",
        r".",
        "both multiply at nearly the rate that the core can; what differs are some cycles to begin and to end each tile, "
        "and outputs that leave the caches",
    ),
    (r"^attention .* 128 tokens$", r".", "the fewer keys a row has, the more weighs what it costs beside products, exponentials above all"),
]


class Row(NamedTuple):
    name: str
    kind: str
    siskin: float
    form: str
    # The time of siskin with x and y as a caller has them, token by token.
    plain: float
    # The fastest peer, if there is any.
    peer: str | None
    peer_form: str
    peer_us: float
    # Whether siskin or the peer met its least time once only, however often it was measured.
    noisy: bool

    @property
    def ratio(self):
        """How many times as long the fastest peer takes."""
        return self.peer_us / self.siskin if self.peer else None

    @property
    def ahead(self):
        return self.peer is None or self.siskin < self.peer_us


def row_of(result):
    """Of what turns.measured found."""
    peers = sorted((found["us"], name, found["form"]) for name, found in result["peers"].items())
    us, peer, form = peers[0] if peers else (0.0, None, "")
    noisy = bool({peer, result["version"]} & set(result["unsettled"]))
    return Row(result["row"], result["kind"], result["siskin"], result["form"], result["plain"], peer, form, us, noisy)


def reason(row, reasons=None):
    for name, peer, why in REASONS if reasons is None else reasons:
        if re.search(name, row.name) and re.search(peer, f"{row.peer}: {row.peer_form}"):
            return why
    return UNKNOWN


def behind(rows):
    """The rows on which siskin is not ahead, by kind, the worst first."""
    return sorted((row for row in rows if not row.ahead), key=lambda row: (row.kind, row.ratio))


def by_kind(rows):
    """Lines: of each kind, on how many of its rows siskin is ahead."""
    all_of, ahead = Counter(row.kind for row in rows), Counter(row.kind for row in rows if row.ahead)
    return [f"{kind}: ahead on {ahead[kind]} of {count} rows" for kind, count in all_of.items()]


def last_line(rows, reasons=None):
    contested = [row for row in rows if row.peer]
    ahead = [row for row in contested if row.ahead]
    text = f"siskin is ahead on {len(ahead)} of {len(contested)} rows"
    packed = sum(row.plain >= row.peer_us for row in ahead)
    if packed:
        text += f" ({packed} of these only where x or y does not lie token by token)"
    if alone := len(rows) - len(contested):
        text += f"; on {alone} more it is alone"
    listed = []
    for row in behind(rows):
        noisy = ", by noisy times" * row.noisy
        listed.append(f"{row.name} ({row.peer}, {row.peer_form}, takes {row.ratio:.3f} of its time{noisy}: {reason(row, reasons)})")
    return f"{text}; not ahead: {'; '.join(listed)}" if listed else f"{text}; there is no row where it is not"
