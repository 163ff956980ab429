"""Expected texts for the template tests, by transformers and its Jinja2: python make.py (needs transformers and jinja2).

templates.txt (chat templates in use, and one each for the parts of the language) gives cases.json; expressions.txt, one expression
a line, and statements.txt give language.json. bundle.json has hashes only, of the texts that the chat templates in the llama.cpp
bundle of the npm package node-llama-cpp give; it needs git and that package in node_modules. What raises has no text."""
import datetime
import hashlib
import json
import pathlib
import subprocess
import tempfile

import jinja2
import transformers
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import _cached_compile_jinja_template, render_jinja_template

HERE = pathlib.Path(__file__).parent
PACKAGE = HERE.parents[4] / "node_modules" / "node-llama-cpp"
NOW = 1785070800


class Clock(datetime.datetime):
    """The date that strftime_now tells."""

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = Clock

CHAT = [
    {"role": "system", "content": " You are it's \"x\" "},
    {"role": "user", "content": "Hi\n é 半歩 <b>"},
    {"role": "assistant", "content": "ok </think> yes"},
    {"role": "user", "content": "  more  "},
]


def text(template, values):
    try:
        return _cached_compile_jinja_template(template).render(**json.loads(json.dumps(values)))
    except Exception:
        return None


cases = []
for template in (HERE / "templates.txt").read_text()[:-1].split("\n=====\n"):
    for messages, prompt in ((CHAT, True), (CHAT[1:], False), ([CHAT[1]], True)):
        cases.append(dict(template=template, messages=messages, prompt=prompt, text=text(template, dict(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"))))
(HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")

# The language: every construct with the same variables.
MESSAGES = [{"role": "user", "n": 2, "x": {"y": 1}}, {"role": "system", "n": 1, "x": {"y": 2}}, {"role": "user", "n": 3}]
VARIABLES = dict(
    none=None, m={"role": "user", "content": " Hi <b> "}, l=[3, 1, 2], e=[], d={"b": 1, "A": {"x": [1, 2.5, None, True]}, "items": 5},
    s="héllo wörld it's", t="a,b,,c", msgs=MESSAGES, n=5, f=2.5, big=1234567.891, z="", b=True,
)
sources = ["{{ " + line + " }}" for line in (HERE / "expressions.txt").read_text().splitlines()]
sources += (HERE / "statements.txt").read_text()[:-1].split("\n=====\n")
# Variables are JSON in JSON: a reader must keep the order of their keys.
language = dict(now=NOW, variables=json.dumps(VARIABLES, ensure_ascii=False), cases=[dict(template=source, text=text(source, VARIABLES)) for source in sources])
(HERE / "language.json").write_text(json.dumps(language, ensure_ascii=False, indent=0) + "\n")

# The templates of the bundle. Each prompt is what a caller of apply_chat_template passes, and what the template is then given.
USER = {"role": "user", "content": "  Hi\n é 半歩 <b> it's \"x\" "}
ANSWERED = [{"role": "system", "content": " You are it. "}, USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nok"}, {"role": "user", "content": "more"}]
PARAMETERS = {
    "place": {"type": "string", "description": "Name of the <place>"},
    "days": {"type": "integer", "enum": [1, 2], "default": 1},
    "unit": {"type": ["string", "null"], "enum": ["C", "F"]},
    "list": {"type": "array", "items": {"type": "number"}},
    "more": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": PARAMETERS, "required": ["place"]},
        "return": {"type": "string", "description": "Ünïcode"},
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = {"place": "Bern", "days": 2, "f": 1.5, "more": {"a": True, "n": None}, "list": [1, "b"]}


def called(name, arguments, content):
    return {"role": "assistant", "content": content, "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}]}


def used(arguments):
    answer = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "{\"t\": 21.5}"}
    return [USER, called("weather", arguments, ""), answer, {"role": "assistant", "content": "21.5"}, {"role": "user", "content": "thanks"}]


THOUGHT = [USER, {"role": "assistant", "content": "ok", "reasoning_content": "hm"}, USER]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]}]
TIME = [USER, called("now", {}, None), {"role": "tool", "content": "12:00"}]
PLAIN = {
    "system": dict(messages=ANSWERED, add_generation_prompt=True),
    "turns": dict(messages=ANSWERED[1:3] * 2, add_generation_prompt=False),
    "one": dict(messages=[USER], add_generation_prompt=True),
    "no prompt": dict(messages=ANSWERED[:3], add_generation_prompt=False),
}
OTHER = {
    "tools": dict(messages=ANSWERED, add_generation_prompt=True, tools=[WEATHER, CLOCK]),
    "calls": dict(messages=ANSWERED[:1] + used(ARGUMENTS), add_generation_prompt=True, tools=[WEATHER]),
    "calls as text": dict(messages=used(json.dumps(ARGUMENTS)), add_generation_prompt=True, tools=[WEATHER]),
    "called": dict(messages=used(ARGUMENTS)[:3], add_generation_prompt=True, tools=[WEATHER]),
    "thinking": dict(messages=THOUGHT, add_generation_prompt=True, enable_thinking=True, thinking=True),
    "no thinking": dict(messages=ANSWERED, add_generation_prompt=True, enable_thinking=False, thinking=False),
    "parts": dict(messages=PARTS, add_generation_prompt=True),
    "documents": dict(messages=[USER], documents=[{"title": "T", "text": "x y"}], add_generation_prompt=True),
    "no content": dict(messages=TIME, tools=[CLOCK], add_generation_prompt=True),
}
TOKENS = dict(bos_token="<s>", eos_token="</s>")


def by_transformers(template, passed):
    passed = json.loads(json.dumps(passed))
    try:
        return render_jinja_template([passed.pop("messages")], chat_template=template, **TOKENS, **passed)[0][0]
    except Exception:
        return None


def digest(text):
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


if PACKAGE.exists():
    prompts = {}
    for name, passed in {**PLAIN, **OTHER}.items():
        messages = chat_template_utils._alias_reasoning_fields(passed["messages"])
        prompts[name] = dict(tools=None, documents=None, **TOKENS) | passed | dict(messages=messages)
    for name, passed in PLAIN.items():
        prompts[name + ", tools undefined"] = TOKENS | passed
    with tempfile.TemporaryDirectory() as folder:
        llama = PACKAGE / "llama" / "gitRelease.bundle"
        subprocess.run(["git", "clone", "-q", "--bare", llama, folder + "/git"], check=True)
        work = pathlib.Path(folder)
        subprocess.run(["git", "--git-dir", folder + "/git", "--work-tree", folder, "checkout", "-q", "HEAD", "--", "models/templates"], check=True)
        files = {path.name: path.read_text() for path in sorted((work / "models" / "templates").glob("*.jinja"))}
    templates = {}
    for name, source in files.items():
        texts = [by_transformers(source, passed) for passed in {**PLAIN, **OTHER}.values()]
        texts += [text(source, TOKENS | passed) for passed in PLAIN.values()]
        templates[name] = dict(source=digest(source), texts=[digest(text) for text in texts])
    version = json.loads((PACKAGE / "package.json").read_text())["version"]
    made_by = dict(transformers=transformers.__version__, jinja2=jinja2.__version__)
    prompts = [[name, json.dumps(variables, ensure_ascii=False)] for name, variables in prompts.items()]
    bundle = dict(package=version, by=made_by, now=NOW, plain=len(PLAIN), prompts=prompts, templates=templates)
    (HERE / "bundle.json").write_text(json.dumps(bundle, ensure_ascii=False, indent=0) + "\n")
