"""Lengths of time as a person reads them."""

STEPS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def parts_of(seconds: float) -> tuple[tuple[int, str], tuple[int, str]]:
    """Split at least a minute into its two largest units, rounded; the second may be none of
    them.
    """
    whole = round(seconds)
    large, name, small, rest = next(step for step in STEPS if whole >= step[0])
    return (whole // large, name), (whole % large // small, rest)


def duration(seconds: float) -> str:
    """Write a length of time: 0.5 s, 20 s, 5 min, 3 min 20 s, 1 h 30 min, 2 d 3 h."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    (count, name), (left, rest) = parts_of(seconds)
    return f"{count} {name} {left} {rest}" if left else f"{count} {name}"
