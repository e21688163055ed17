"""Where hearth's prompts are not those of Python, and why."""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from jinja2 import Environment, Template
from jinja2.sandbox import SandboxedEnvironment
from reference import environment


@cache
def compiled(template: str) -> Template:
    return environment().from_string(template)


@dataclass(frozen=True)
class Case:
    """A template and what it is given."""

    template: str
    values: dict

    def render(self, jinja: Environment | None = None, **values: object) -> str:
        """What Python makes of it, with further values or in another environment."""
        template = jinja.from_string(self.template) if jinja else compiled(self.template)
        return template.render(**copy.deepcopy({**self.values, **values}))

    def messages(self) -> list[dict]:
        """Messages that may be changed."""
        return copy.deepcopy(self.values["messages"])


@dataclass(frozen=True)
class Difference:
    """Where prompts differ, why, and what of Python's is the same as hearth's prompt."""

    templates: str
    conversations: str
    reason: str
    # None where hearth refuses, too.
    alike: Callable[[Case], str] | None
    # Part of what hearth says where it refuses.
    refusal: str = field(default="")


def thinking(case: Case) -> str:
    return case.render(enable_thinking=True)


def today(case: Case) -> str:
    return case.render(date_string=datetime.now().strftime("%d %b %Y"))


def today_without_functions(case: Case) -> str:
    return case.render(functions="", datetime=datetime.now().strftime("%b %d %Y"))


def with_text_arguments(messages: list[dict]) -> list[dict]:
    """As OpenAI's API has them."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return messages


def text_arguments(case: Case) -> str:
    return case.render(messages=with_text_arguments(case.messages()))


def system_in_user(case: Case) -> str:
    system, first, *others = case.messages()
    first["content"] = f"{system['content']}\n{first['content']}"
    return case.render(messages=[first, *others])


def trimmed(case: Case) -> str:
    return case.render(messages=[{**message, "content": message["content"].strip()} for message in case.messages()])


def blocks(case: Case) -> str:
    """Thoughts and content as Mistral's own library has them."""
    messages = case.messages()
    for message in messages:
        if message["role"] == "assistant":
            thought, text = message.pop("reasoning_content"), message["content"]
            message["content"] = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": text}]
    return case.render(messages=messages)


def results_beside_calls(case: Case) -> str:
    """As the first version of Gemma 4 has them."""
    *messages, call, result = case.messages()
    call["tool_responses"] = [{"name": result["name"], "response": json.loads(result["content"])}]
    return case.render(messages=[*messages, call])


def lists_that_grow(case: Case) -> str:
    changeable = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    changeable.filters["tojson"] = environment().filters["tojson"]
    return case.render(changeable)


def generators_as_lists(case: Case) -> str:
    jinja = environment()
    tojson = jinja.filters["tojson"]
    jinja.filters["tojson"] = lambda value, **more: tojson(value if isinstance(value, dict) else list(value), **more)
    return case.render(jinja)


def unescaped(case: Case) -> str:
    return html.unescape(case.render())


def other_quotes(case: Case) -> str:
    prompt = case.render()
    for text in ['Forecast for a <city> & its "area": it\'s good', 'it\'s "wind"']:
        prompt = prompt.replace(repr(text), json.dumps(text))
    return prompt


def lists_without_brackets(case: Case) -> str:
    fields = ["sky", 'it\'s "wind"']
    return case.render().replace(repr(fields), "".join(fields))


DIFFERENCES = [
    # Defaults.
    Difference(
        """Apertus-8B-Instruct Bielik-11B-v3.0-Instruct CohereForAI-c4ai-command-r7b-12-2024-tool_use Qwen-QwQ-32B Reka-Edge
        deepseek-ai-DeepSeek-R1-Distill-Qwen-32B deepseek-ai-DeepSeek-V3.1 deepseek-ai-DeepSeek-V3.2 deepseek-ai-DeepSeek-V4
        deepseek-ai-DeepSeek-V4-Flash-0731 google-gemma-4-31B-it google-gemma-4-31B-it-interleaved llama-cpp-rwkv-world
        openbmb-MiniCPM5-1B poolside-Laguna-XS-2.1 poolside-Laguna-XS.2""",
        "plain",
        "as in llama-server models think unless they are told not to; these templates have it the other way round",
        thinking,
    ),
    Difference(
        "meta-llama-Llama-3.1-8B-Instruct meta-llama-Llama-3.3-70B-Instruct",
        "plain",
        "llama.cpp tells the date of today; without one the template takes that of its own day",
        today,
    ),
    Difference(
        "fireworks-ai-llama-3-firefunction-v2",
        "plain tools thoughts",
        "it asks for `functions` and `datetime` in place of `tools`: Python refuses; llama.cpp has the date, and for the other "
        "(which `chat_template_kwargs` may have) nothing",
        today_without_functions,
    ),
    # What llama.cpp changes in messages, so that the template takes them.
    Difference(
        "google-gemma-2-2b-it",
        "plain",
        "it refuses a system message; llama.cpp puts it in front of the first of the user",
        system_in_user,
    ),
    Difference(
        "meetkai-functionary-medium-v3.2",
        "tools",
        "it wants arguments as text, which is how they come to hearth",
        text_arguments,
    ),
    Difference(
        "StepFun3.5-Flash",
        "thoughts",
        "llama.cpp trims contents: space around them has this model think in circles",
        trimmed,
    ),
    Difference(
        "mistralai-Ministral-3-14B-Reasoning-2512",
        "thoughts",
        "it wants thoughts as blocks of the content, and llama.cpp makes these of `reasoning_content`",
        blocks,
    ),
    Difference(
        "google-gemma-4-31B-it-interleaved",
        "tools",
        "it wants results beside their calls; llama.cpp moves them there",
        results_beside_calls,
    ),
    # Where Python refuses or spoils.
    Difference(
        "Kimi-K2-Instruct Kimi-K2-Thinking",
        "tools",
        "it appends to a list, which the sandbox of transformers forbids",
        lists_that_grow,
    ),
    Difference(
        "llama-cpp-deepseek-r1",
        "tools",
        "it writes what a filter gives as JSON: to Python this is a generator, which has none",
        generators_as_lists,
    ),
    Difference(
        "meetkai-functionary-medium-v3.1",
        "tools",
        "it marks a text as safe, which has Python escape for HTML what is added to it",
        unescaped,
    ),
    Difference(
        "CohereForAI-c4ai-command-r-plus-tool_use NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use "
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        "plain thoughts",
        "both refuse: it is for conversations with tools",
        None,
        "Expected iterable or object type in for loop: got None",
    ),
    Difference(
        "google-gemma-2-2b-it",
        "tools",
        "both refuse: it knows neither tools nor what they say",
        None,
        "Conversation roles must alternate",
    ),
    # Where llama.cpp's Jinja is not Python's.
    Difference(
        "Apriel-1.6-15b-Thinker-fixed unsloth-Apriel-1.5 ByteDance-Seed-OSS LFM2.5-8B-A1B",
        "tools",
        "it prints a list or an object as it is: Python escapes the single quotes in a text that has both kinds, llama.cpp the "
        "double ones",
        other_quotes,
    ),
    Difference(
        "openbmb-MiniCPM5-1B",
        "tools",
        "it prints a list as it is: llama.cpp joins its texts",
        lists_without_brackets,
    ),
    # Where llama.cpp is wrong.
    Difference(
        "CohereForAI-c4ai-command-r-plus-tool_use",
        "tools",
        "its `json_spec.items` is a method, not what is in the list; nothing is in a method to Python, and llama.cpp refuses",
        None,
        "Function has no builtins",
    ),
]
