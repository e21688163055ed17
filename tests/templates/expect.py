"""Writes what Python's Jinja2 makes of each template and context.

Run after a change of a template or context: `python tests/templates/expect.py` (needs jinja2 3.1).
"""

import json
import pathlib

from reference import environment

HERE = pathlib.Path(__file__).parent


def main():
    jinja = environment()
    contexts = json.loads((HERE / "contexts.json").read_text())
    expected = {}
    for path in sorted(HERE.glob("*.jinja")):
        template = jinja.from_string(path.read_text())
        for name, context in contexts.items():
            values = {"tools": None, "bos_token": "<s>", "eos_token": "</s>", **context}
            expected[f"{path.stem} {name}"] = template.render(**values)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (HERE / "expected.json").write_text(text + "\n")


main()
