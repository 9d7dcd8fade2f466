"""Colors by name, each in light and in dark, as variables of a page's style sheet.

A picture is drawn in the light ones. On a page each becomes the variable of its name,
so that it follows the reader's theme.
"""

# Told apart in the common forms of color blindness: those of Okabe and Ito, the pale
# ones darker, and three more.
KINDS = {
    "k0": ("#0072b2", "#4aa8e0"),
    "k1": ("#d55e00", "#f08a3c"),
    "k2": ("#009e73", "#35c79c"),
    "k3": ("#b8528f", "#e08fc0"),
    "k4": ("#c98a00", "#e8b13a"),
    "k5": ("#2fa0d8", "#8ed0f5"),
    "k6": ("#7a6000", "#c2a83e"),
    "k7": ("#6a51a3", "#ab97e6"),
    "k8": ("#8c3b2a", "#d98272"),
    "k9": ("#5b7f1d", "#a3c95c"),
}
NAMED = KINDS | {
    "paper": ("#f6f7f8", "#14171a"),
    "card": ("#ffffff", "#1c2126"),
    "ink": ("#1c2025", "#e8eaed"),
    "soft": ("#59616b", "#a3abb5"),
    "rule": ("#d9dde2", "#333a42"),
    "grid": ("#e7e9ec", "#2b3138"),
    "line": ("#9aa1ab", "#6d757f"),
    "base": ("#4a4f57", "#c4cad2"),
    "warn": ("#b3341c", "#ff8a70"),
}
COLORS = tuple(light for light, _ in KINDS.values())
CARD, INK, SOFT, GRID, LINE, BASE, WARN = (
    NAMED[name][0] for name in ("card", "ink", "soft", "grid", "line", "base", "warn")
)


def variable(color: str) -> str:
    """A light color as the variable of its name, itself where there is none.

    >>> variable("#0072b2"), variable("#123456")
    ('var(--k0,#0072b2)', '#123456')
    """
    names = [name for name, (light, _) in NAMED.items() if light == color]
    return f"var(--{names[0]},{color})" if names else color


def variables() -> str:
    """The rules of a style sheet that define the variables in both themes."""
    light, dark = (
        "; ".join(f"--{name}: {pair[theme]}" for name, pair in NAMED.items())
        for theme in (0, 1)
    )
    return (
        f":root {{ color-scheme: light dark; {light}; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}; }} }}\n"
    )
