"""Where hearth answers otherwise than llama-server, and why.

Each row: the names of cases and the difference, as regular expressions for the whole text, and the reason.
"""


DIFFERENCES: list[tuple[str, str, str]] = [
    # What hearth tells beside.
    (".*", r"with (\w+:)?\.usage\.completion_tokens_details(\..*)?", "OpenAI's usage has it: tokens of reasoning"),
    (".*", r"with (\w+:)?\.choices\[\]\.logprobs", "OpenAI's schema requires it: null where nobody asked"),
    ("v1 completion probabilities.*", r"with(out)? (text:)?\.choices\[\]\.logprobs\..*", "OpenAI has lists here; llama-server has the form of chat"),
    ("chat probabilities.*", r"with(out)? (content:)?\.choices\[\]\.logprobs\.(refusal|content.*\.id)", "OpenAI has no ids of tokens here, but refusals"),
    (".*", r"with \.choices\[\]\.message\.refusal", "OpenAI's schema requires it"),
    (".*", r"with \.error\.param", "the field that is at fault"),
    ("chat json (object|schema).*", r"with (reasoning_content:)?\.choices\[\]\.(message|delta)\.reasoning", "vLLM's name, beside llama-server's"),
    ("chat grammar.*", r"with (reasoning_content:)?\.choices\[\]\.(message|delta)\.reasoning(_content)?|events role reasoning_content content .*",
     "a grammar holds for the answer, after the thoughts"),
    ("get /(v1/)?models", r"with \.data\[\]\..*", "role, running context (vLLM's and OpenRouter's names), state and occupation"),
    ("(chat|v1 completion) usage", r"with (role|content|text|finish):\.usage", "as OpenAI: null in all chunks but the last"),
    # Errors of /v1 are OpenAI's, so that its SDKs read them; those of llama-server's own paths are llama-server's.
    ("(chat|v1 completion) .*|.* to /v1/.*", r"\.error\.code is (None|'\w+'), not 400", "OpenAI's codes are words"),
    ("(chat|v1 completion) bad too long.*", r"\.error\.type is 'invalid_request_error', not 'exceed_context_size_error'",
     "OpenAI's type; the code is context_length_exceeded"),
    ("get /(v1/)?nothing", r"\.error\.(code|type) is .*", "OpenAI's codes are words, and unknown paths belong to nobody"),
    # What llama-server answers with 500, or lets pass.
    (".*", "status 400, not 500", "what is wrong with a request is the client's fault"),
    ("(no JSON|a list|nothing) to /infill", "status 400, not 501", "the body is read before the model is asked"),
    ("(get|delete|post) .*", "status 405, not 404", "the path exists, the method does not"),
    ("(de)?tokenize none|tokenize bad flag|a list to /tokenize", "status 400, not 200", "a mistake is told, not ignored"),
    ("completion bad (stop number|grammar type|samplers|bias|bias pair)", "status 400, not 200", "a mistake is told, not ignored"),
    ("completion bad breakers", "status 200, not 400", "an empty list of sequence breakers is a list"),
    ("slot unknown", "status 400, not 200", "a mistake is told, not ignored"),
    ("set adapters", "status 501, not 200", "there are no adapters: to pretend would be wrong"),
    ("infill prompt", "status 400, not 200", "a mistake is told, not ignored"),
    # What hearth does not do.
    ("completion probabilities after sampling.*", "status 400, not 200", "probabilities are those before sampling"),
    ("completion least candidates.*", "status 400, not 200", "not there yet"),
    ("get /props", r"without \.chat_template_caps\..*", "templates are tried out when they are first used, not before"),
    ("post /v1/embeddings", "status 400, not 501", "OpenAI's SDKs would try again after a 501"),
    # Answers.
    ("completion empty(, streamed)?", r"(last:)?\.stop_type is '(eos|limit)', not 'none'", "an empty prompt is continued, after the token that begins a text"),
    ("completion empty, streamed", "events text last, not last", "an empty prompt is continued, after the token that begins a text"),
    ("completion several.*, streamed|v1 completion several, streamed", "no event null", "llama-server sends a null when several prompts begin"),
    ("v1 completion .*|completion stop.*, streamed|chat stop, streamed", r"without (text|content):\.timings(\..*)?",
     "llama-server tells the timings in the chunk before the last one, too, where a stop string ends the answer"),
    ("v1 completion .*", r"(without finish:\.(usage|timings)(\..*)?|finish:\.usage is null, not object)", "as OpenAI: usage on demand, in a chunk of its own"),
    ("v1 completion usage", "events text finish usage .*", "as OpenAI: usage on demand, in a chunk of its own"),
    ("(unversioned )?chat tool call", r"\.choices\[\]\.message\.content is null, not string", "as OpenAI: no content beside a call is null"),
    ("infill other files", r"\.prompt is .*", "half of what the two sides leave of the context is for other files, after a blank line each"),
    ("infill long", "status 200, not 400", "the two sides are cut so that an answer fits"),
    ("chat tool required(, streamed)?", r".*(tool_calls|content is null, not string).*", "the call is complete within the limit; llama-server's model goes on"),
    ("chat progress, streamed", "events role progress .*", "the first chunk has the role, whatever comes next"),
    ("chat prefilled, streamed", "events role finish .*", "what the client sent is not sent back (as vLLM does)"),
]  # fmt: skip
