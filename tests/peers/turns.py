"""Times the first token of later turns of a conversation, by hearth and by llama-server:

    python3 tests/peers/turns.py HEARTH LLAMA_SERVER MODEL.gguf

Both get the same model, threads, slots and context, and the same conversations by turns: a system message of 400 words and six
tools, a question of 100 words, a second turn, the same again, another question in its place, and another conversation with the
same system message and tools. ROUNDS (3) conversations each, THREADS (2). Only the standard library is needed.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

WORDS = "river stone bread winter garden letter window silver forest morning bridge candle market story engine".split()
CONTEXT = 4096


def text(numbers, words):
    return " ".join(numbers.choices(WORDS, k=words))


def tools(numbers):
    def tool(index):
        argument = {"type": "string", "description": text(numbers, 10)}
        parameters = {"type": "object", "properties": {"a": argument}, "required": ["a"]}
        return {"name": f"tool_{index}", "description": text(numbers, 20), "parameters": parameters}

    return [{"type": "function", "function": tool(index)} for index in range(6)]


def ask(base, messages, offered):
    """Seconds to the first token, tokens of the prompt that were computed, and the answer."""
    body = {"messages": messages, "tools": offered, "max_tokens": 16, "temperature": 0, "ignore_eos": True, "stream": True}
    body["stream_options"] = {"include_usage": True}
    request = urllib.request.Request(
        base + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    begin, first, answer, usage = time.monotonic(), None, "", {}
    try:
        response = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        sys.exit(f"{base}: {error.read().decode()}")
    with response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                delta = choice["delta"]
                if first is None and any(delta.get(key) for key in ("content", "reasoning_content", "tool_calls")):
                    first = time.monotonic() - begin
                answer += delta.get("content") or ""
    # A token that prints nothing comes with the end at the latest.
    first = first or time.monotonic() - begin
    return first, usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"], answer


def conversation(base, seed):
    numbers = random.Random(seed)
    offered = tools(numbers)
    system = {"role": "system", "content": text(numbers, 400)}

    def question(words=40):
        return {"role": "user", "content": text(numbers, words)}

    turns = [system, question(100)]
    *first, answer = ask(base, turns, offered)
    turns += [{"role": "assistant", "content": answer or "ok"}, question()]
    prompts = {
        "second turn": turns,
        "the same again": turns,
        "edited": [*turns[:-1], question()],
        "another with the same beginning": [system, question()],
    }
    return {"first turn": first} | {name: ask(base, prompt, offered)[:2] for name, prompt in prompts.items()}


def wait_for(base, process):
    while True:
        try:
            urllib.request.urlopen(base + "/health").close()
            return
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                sys.exit(f"the server at {base} ended")
            time.sleep(0.2)


def main(hearth, llama_server, model):
    threads, rounds = os.environ.get("THREADS", "2"), int(os.environ.get("ROUNDS", "3"))
    folder = Path(tempfile.mkdtemp())
    commands = [
        [hearth, "serve", "--model-path", model, "--context", CONTEXT, "--parallel", 2, "--threads", threads, "--port", 18500],
        [llama_server, "-m", model, "-c", 2 * CONTEXT, "-np", 2, "-t", threads, "--jinja", "--port", 18501],
    ]
    bases = ["http://127.0.0.1:18500", "http://127.0.0.1:18501"]
    servers = []
    try:
        for number, command in enumerate(commands):
            log = (folder / f"{number}.log").open("w")
            servers.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log))
        for base, server in zip(bases, servers):
            wait_for(base, server)
        runs = [[conversation(base, seed) for base in bases] for seed in range(rounds)]
    finally:
        for server in servers:
            server.kill()
    print("| first token | hearth, ms | computed | llama-server, ms | computed | ratio | of hearth's first turn |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in runs[0][0]:

        def median(value):
            return statistics.median(value(*run) for run in runs)

        ours, theirs = (median(lambda *run, at=at: run[at][name][0]) * 1000 for at in range(2))
        ratio = median(lambda ours, theirs: ours[name][0] / theirs[name][0])
        share = median(lambda ours, _: ours[name][0] / ours["first turn"][0])
        computed = [run[name][1] for run in runs[0]]
        print(f"| {name} | {ours:.0f} | {computed[0]} | {theirs:.0f} | {computed[1]} | {ratio:.2f} | {share:.2f} |")
    print(f"logs: {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
