"""HTML as values: `el` escapes every child and attribute that is not already `Safe`.

So a name from the ledger cannot become markup.
"""

from html import escape


class Safe(str):
    """A string that is already HTML."""

    __slots__ = ()


VOID = frozenset(
    {"meta", "br", "hr", "col", "line", "circle", "rect", "path", "polyline", "polygon"}
)


def safe(child: object) -> Safe:
    """The child as HTML: itself when `Safe`, escaped otherwise; None is nothing."""
    if child is None:
        return Safe("")
    return child if isinstance(child, Safe) else Safe(escape(str(child), quote=True))


def join(*children: object) -> Safe:
    """Children one after the other."""
    return Safe("".join(safe(child) for child in children))


def el(name: str, /, *children: object, **attributes: object) -> Safe:
    """One element.

    `class_` becomes `class`, other underscores `-`; an attribute that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Safe(
            f"<{name}{written}>" if name in {"meta", "br", "hr", "col"} else f"<{name}{written}/>"
        )
    return Safe(f"<{name}{written}>{join(*children)}</{name}>")
