"""A real Prometheus scrapes a real hearth with deploy/'s rules, and answers every query of the dashboard.

usage: monitoring.py HEARTH    (prometheus and promtool are found by PATH)
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONFIG = """
[server]
port = 0
[[model]]
name = "thinks"
path = "demo:reasoner"
parallel = 1
queue = 1
experts = { placement = "cache", device = "cpu", cache = "50%" }
[[model]]
name = "tells"
path = "demo:narrator"
"""
# What a machine without a GPU, or a server where all is well, has nothing of.
MAY_BE_EMPTY = re.compile(r"hearth_gpu_|num_accepted_tokens")
PATIENCE = 120


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def wait_for(what: str, condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if condition():
                return
        time.sleep(0.2)
    sys.exit(f"{what}: not within {PATIENCE} seconds")


@contextlib.contextmanager
def running(command: list[str], **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ask(hearth: str, model: str, tokens: int) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens}
    request = urllib.request.Request(f"{hearth}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


def queries(value) -> list[str]:
    """All PromQL of a dashboard, its variables set."""
    if isinstance(value, list):
        return [query for entry in value for query in queries(entry)]
    if not isinstance(value, dict):
        return []
    found = [query for entry in value.values() for query in queries(entry)]
    if isinstance(value.get("expr"), str):
        query = value["expr"].replace("$__rate_interval", "10s")
        query = query.replace("$instance", ".*").replace("$model", ".*")
        assert "$" not in query, f"{query} has a variable that is not known here"
        found.append(query)
    return found


def promtool(*arguments: str, **options) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, **options)
    # What it advises against comes with an exit code too, but not for every command.
    if done.returncode != 0 or "error" in done.stderr.lower():
        sys.exit(f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}")


def main() -> None:
    hearth_binary = sys.argv[1]
    dashboards = [json.loads(path.read_text()) for path in (DEPLOY / "grafana/dashboards").glob("*.json")]
    promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yaml"))
    promtool("test", "rules", "alerts_test.yaml", cwd=DEPLOY / "prometheus")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "models.toml").write_text(CONFIG)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
        environment["HEARTH_CACHE"] = str(folder / "cache")
        log = stack.enter_context(open(folder / "log", "w"))
        hearth = stack.enter_context(
            running(
                [hearth_binary, "serve", "--config", str(folder / "models.toml"), "--threads", "1"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        )
        line = hearth.stdout.readline()
        if "http://" not in line:
            sys.exit(f"hearth does not start: {(folder / 'log').read_text()}")
        address = line.split("http://")[1].strip()
        hearth_url = f"http://{address}"
        wait_for("hearth is ready", lambda: get(f"{hearth_url}/readyz"))

        # The configuration as it is, but for the address and the pace.
        text = (DEPLOY / "prometheus/prometheus.yaml").read_text()
        text = text.replace("hearth:8080", address).replace("15s", "1s").replace("10s", "1s")
        (folder / "prometheus.yaml").write_text(text)
        (folder / "alerts.yaml").write_text((DEPLOY / "prometheus/alerts.yaml").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        stack.enter_context(
            running(
                [
                    "prometheus",
                    f"--config.file={folder}/prometheus.yaml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stderr=subprocess.DEVNULL,
            )
        )
        wait_for("Prometheus is ready", lambda: get(f"{url}/-/ready"))

        def value_of(query: str) -> list:
            answer = json.loads(get(f"{url}/api/v1/query?query={urllib.parse.quote(query)}"))
            return answer["data"]["result"]

        wait_for("hearth is scraped", lambda: value_of('up{job="hearth"} == 1'))
        # Rates need something in each of several scrapes.
        for _ in range(8):
            ask(hearth_url, "thinks", 16)
            ask(hearth_url, "tells", 16)
            time.sleep(1)
        scrape = get(f"{hearth_url}/metrics")
        promtool("check", "metrics", input=scrape)

        asked = 0
        for dashboard in dashboards:
            for query in queries(dashboard["panels"]):
                try:
                    result = value_of(query)
                except urllib.error.HTTPError as error:
                    sys.exit(f"{query}\n{error.read().decode()}")
                if not result and not MAY_BE_EMPTY.search(query):
                    sys.exit(f"a panel shows nothing: {query}")
                asked += 1
        rules = json.loads(get(f"{url}/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in rules for rule in group["rules"]]
        for rule in rules:
            if rule["health"] != "ok" or rule["state"] == "firing":
                sys.exit(f"{rule['name']}: {rule['health']}, {rule['state']} {rule.get('lastError', '')}")
        families = scrape.count("# TYPE ")
        print(f"{families} families, {asked} queries and {len(rules)} alerts are well")


if __name__ == "__main__":
    main()
