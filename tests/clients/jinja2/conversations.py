"""The conversations of which prompts are made, as users of transformers have them: arguments of calls are objects.

`variables` are those of `apply_chat_template(..., **variables)`, and hearth's `chat_template_kwargs`.
"""

from __future__ import annotations

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_forecast",
            "description": 'Forecast for a <city> & its "area": it\'s good',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city", "enum": ["Zürich <ZH>", "Paris"]},
                    "days": {"type": "integer", "description": "How many days"},
                    "fields": {"type": "array", "description": "What to tell", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "Time of day in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
                "required": ["city"],
            },
        },
    },
]

CONVERSATIONS: dict[str, dict] = {
    "plain": {
        "messages": [
            {"role": "system", "content": "You are <hearth>, a 'helpful' & \"short\" assistant."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi there. What can I do for you?"},
            {"role": "user", "content": "Tell me a story."},
        ],
    },
    "tools": {
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "What will the weather be in Zürich?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "abcdef123",
                        "type": "function",
                        "function": {
                            "name": "get_forecast",
                            "arguments": {"city": "Zürich <ZH>", "days": 3, "fields": ["sky", 'it\'s "wind"']},
                        },
                    }
                ],
            },
            {
                "role": "tool",
                "name": "get_forecast",
                "tool_call_id": "abcdef123",
                "content": '{"sky": "fog & \'mist\'", "wind": 4.5}',
            },
        ],
        "tools": TOOLS,
        "variables": {"enable_thinking": True, "date_string": "26 Jul 2026"},
    },
    "thoughts": {
        "messages": [
            {"role": "user", "content": "  Wie heißt das Tier?  🦙\n\n"},
            {
                "role": "assistant",
                "reasoning_content": 'The user asks in German:\n\n  {{ messages }} means "animal" … ラマ.',
                "content": "\tEin Lama: „Lama glama“.\n",
            },
            {"role": "user", "content": "\r\nAnd in 日本語?\u00a0{% raw %} "},
            {"role": "assistant", "reasoning_content": "ラマ, of course.", "content": "ラマ\n\n"},
            {"role": "user", "content": "Danke!\n"},
        ],
        "variables": {"enable_thinking": False, "date_string": "26 Jul 2026"},
    },
}
