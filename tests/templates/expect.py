"""Writes what Python's Jinja2 makes of each template and context, set up as Hugging Face's apply_chat_template does it.

Run after a change of a template or context: `python tests/templates/expect.py` (needs jinja2 3.1).
"""

import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def main():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    contexts = json.loads((HERE / "contexts.json").read_text())
    expected = {}
    for path in sorted(HERE.glob("*.jinja")):
        template = environment.from_string(path.read_text())
        for name, context in contexts.items():
            values = {"tools": None, "bos_token": "<s>", "eos_token": "</s>", **context}
            expected[f"{path.stem} {name}"] = template.render(**values)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (HERE / "expected.json").write_text(text + "\n")


main()
