"""Expected texts for the template tests, by Jinja2 with the settings of transformers: python make.py (needs jinja2) reads templates.txt, writes cases.json.

A template that raises has no text. The templates in templates.txt are chat templates in use, and one each for the parts of the language."""
import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent


class Generation(Extension):
    """{% generation %} marks text and leaves it as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(value, indent=None):
    return json.dumps(value, ensure_ascii=False, indent=indent)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception

CHAT = [
    {"role": "system", "content": " You are it's \"x\" "},
    {"role": "user", "content": "Hi\n é 半歩 <b>"},
    {"role": "assistant", "content": "ok </think> yes"},
    {"role": "user", "content": "  more  "},
]


def text(template, messages, prompt):
    values = dict(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
    try:
        return environment.from_string(template).render(**values)
    except Exception:
        return None


cases = []
for template in (HERE / "templates.txt").read_text()[:-1].split("\n=====\n"):
    for messages, prompt in ((CHAT, True), (CHAT[1:], False), ([CHAT[1]], True)):
        cases.append(dict(template=template, messages=messages, prompt=prompt, text=text(template, messages, prompt)))
(HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
