"""Where hearth answers otherwise than llama-server, and why.

Each row: the names of cases and the difference, as regular expressions for the whole text, and the reason.
"""

DIFFERENCES: list[tuple[str, str, str]] = [
]
