"""The tables of a campaign: summary.py FOLDER, as Markdown.

Reads what `scripts/gpu-campaign run` wrote: parts.json, placements/placements.json, sweep/*.json, switches/*.json, and the log
of tokens. What is not there is left out. Needs nothing but Python's own library.
"""

import json
import sys
from pathlib import Path


def read(path: Path):
    """A file's JSON; None if it is not there or was cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def table(header: list[str], rows: list[list[str]]) -> str:
    numbers = [all(row[column][:1].isdigit() or row[column] == "-" for row in rows) for column in range(len(header))]
    rule = ["---:" if number else "---" for number in numbers]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows]) + "\n"


def spread(value: dict | None) -> str:
    if not value:
        return "-"
    return "{} ({}..{})".format(*(digits(value[key]) for key in ("median", "min", "max")))


def digits(value: float) -> str:
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def machine(report: dict) -> str:
    facts = report["machine"]
    gib = 1 << 30
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / gib:.1f} GiB)" for gpu in facts["gpus"]) or "no GPU"
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_bytes'] / gib:.0f} GiB, {gpus}; {report['date'][:10]}"


def placements(folder: Path) -> str | None:
    report = read(folder / "placements" / "placements.json")
    if report is None:
        return cut_off(folder / "placements.log")
    first = next((way for way in report["placements"] if way["cases"]), None)
    if first is None:
        return "No way could be measured.\n"
    header = ["experts", "GPU GiB"]
    for case in first["cases"]:
        alone = case["generate"] == 1
        header.append(f"prefill {case['prompt_tokens']}" if alone else f"decode, {case['concurrency']} at once")
    header += ["hit rate", "beside a long prompt", "longest pause ms", "its first token ms"]
    rows = []
    for way in report["placements"]:
        row = [way["name"], digits(way["gpu_bytes"] / (1 << 30))]
        if "error" in way:
            rows.append(row + [f"failed: {way['error']}"] + ["-"] * (len(header) - 3))
            continue
        hits = None
        for case, base in zip(way["cases"], first["cases"]):
            key = "prefill_per_second" if case["generate"] == 1 else "decode_per_second"
            rate = spread(case[key])
            if case[key] and base[key] and base[key]["median"]:
                rate += f" x{case[key]['median'] / base[key]['median']:.2f}"
            row.append(rate)
            if case["generate"] > 1 and case["experts"] and hits is None:
                hits = case["experts"]["hit_rate"]
        mixed = way.get("mixed") or {}
        row.append(f"{hits['median'] * 100:.1f} %" if hits else "-")
        row += [spread(mixed.get(key)) for key in ("share", "longest_pause_ms", "first_token_ms")]
        rows.append(row)
    notes = "".join(f"\n{note}" for note in report["notes"])
    return (
        table(header, rows)
        + f"\nTokens per second, medians with the least and the largest of {report['repeat']} runs, and their ratio to the first row."
        + f"\n{machine(report)}; `{report['command']}`{notes}\n"
    )


def cut_off(log: Path) -> str | None:
    """What `hearth benchmark --placements` told of the ways that it had measured before it was ended."""
    try:
        lines = log.read_text().splitlines()
    except OSError:
        return None
    ways = [f"* {name}: {row.strip()}" for name, row in zip(lines, lines[1:]) if row.startswith("  GPU memory: ")]
    return "\n".join(["It did not get to its end. What was measured before:\n", *ways]) + "\n" if ways else None


def seconds_per_token(report: dict) -> float | None:
    rate = report["cases"][0]["decode_per_second"]
    return 1 / rate["median"] if rate and rate["median"] else None


def line(points: list[tuple[float, float]]) -> tuple[float, float] | None:
    """Slope and intercept of the straight line with the least squares."""
    count = len(points)
    if count < 2:
        return None
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    spread_x = sum((x - mean_x) ** 2 for x, _ in points)
    if spread_x == 0:
        return None
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread_x
    return slope, mean_y - slope * mean_x


def inspected(path: Path) -> dict | None:
    found = read(path)
    if found is None:
        return None
    geometry = found["geometry"]
    layers = geometry["layers"] - geometry["dense_layers"]
    experts = found["components"].get("routed experts", {}).get("bytes", 0)
    return {
        "layers": layers,
        "selected": layers * geometry["experts_per_token"],
        "expert_bytes": experts / max(1, layers * geometry["experts"]),
    }


def sweep(folder: Path) -> str | None:
    model = inspected(folder / "sweep" / "model.inspect")
    ways = ["0", "25", "50", "75", "100", "gpu", "cpu"]
    reports = {way: read(folder / "sweep" / f"{way}.json") for way in ways}
    reports = {way: report for way, report in reports.items() if report}
    if model is None or not reports:
        return None
    rows, points, times = [], [], {}
    for way, report in reports.items():
        case = report["cases"][0]
        time = times[way] = seconds_per_token(report)
        hits = case["experts"] and case["experts"]["hit_rate"]
        cold = model["selected"] * (1 - hits["median"]) if hits else None
        if time is not None and cold is not None:
            points.append((cold, time))
        rows.append([
            {"gpu": "experts on the GPU", "cpu": "experts on the CPU"}.get(way, f"copies of {way} %"),
            spread(case["decode_per_second"]),
            digits(time * 1e3) if time else "-",
            f"{hits['median'] * 100:.1f} %" if hits else "-",
            digits(cold) if cold is not None else "-",
            spread(case["prefill_per_second"]),
        ])
    header = ["experts", "decode tokens/s", "ms per token", "hit rate", "cold experts per token", "prefill tokens/s"]
    text = table(header, rows)
    fitted = line(points)
    if fitted:
        slope, intercept = fitted
        worst = max(abs(time - (intercept + slope * cold)) for cold, time in points)
        text += (
            f"\nA straight line through the copies: {slope * 1e6:.1f} us for each cold expert"
            f" ({model['expert_bytes'] / slope / 1e9:.1f} GB/s of its {model['expert_bytes'] / 1e6:.2f} MB)"
            if slope > 0
            else "\nA straight line through the copies does not rise: cold experts cost nothing that can be seen"
        )
        text += f", {intercept * 1e3:.2f} ms for a token without any; the farthest point is {worst * 1e3:.2f} ms off.\n"
        if times.get("gpu"):
            each = (intercept - times["gpu"]) / model["layers"]
            text += f"Without copies, all on the GPU: {times['gpu'] * 1e3:.2f} ms. The difference is what hand-overs cost: {each * 1e6:.0f} us for each of {model['layers']} layers.\n"
    return text + f"{machine(next(iter(reports.values())))}\n"


def switches(folder: Path) -> str | None:
    files = sorted((folder / "switches").glob("*.json"), key=lambda path: int(path.stem.split("-")[0]))
    reports = [(path.stem.split("-", 1)[1], report) for path in files if (report := read(path))]
    if not reports:
        return None
    base = reports[0][1]["cases"][0]
    rows = []
    for name, report in reports:
        case = report["cases"][0]
        row = [name]
        for key in ("decode_per_second", "prefill_per_second"):
            now, then = case[key], base[key]
            row += [spread(now), f"{now['median'] / then['median']:.2f}" if now and then and then["median"] else "-"]
        rows.append(row)
    header = ["switch", "decode tokens/s", "ratio", "prefill tokens/s", "ratio"]
    return table(header, rows) + f"\n{machine(reports[0][1])}\n"


def tokens(folder: Path) -> str | None:
    try:
        lines = (folder / "tokens.log").read_text().splitlines()
    except OSError:
        return None
    told = [text for text in lines if "the same" in text or "FAILED" in text or "left out" in text]
    if not told:
        return None
    same = sum(text.endswith(": the same") for text in told)
    others = [f"* {text}" for text in told if not text.endswith(": the same")]
    return "\n".join([f"{same} of {len(told)} answers are the same, character for character.", *others]) + "\n"


def parts(folder: Path) -> str | None:
    found = read(folder / "parts.json")
    if not found:
        return None
    meaning = {0: "done", 77: "left out", 124: "over its limit", 130: "ended from outside", 137: "over its limit"}
    rows = [[part["part"], meaning.get(part["code"], f"failed, exit code {part['code']}"), str(part["seconds"])] for part in found]
    return table(["part", "what came of it", "seconds"], rows)


def main() -> None:
    folder = Path(sys.argv[1])
    sections = {"Parts": parts, "Same tokens": tokens, "Placements": placements, "Sweep": sweep, "Switches": switches}
    print("# Campaign\n")
    for title, section in sections.items():
        try:
            text = section(folder)
        except (KeyError, TypeError, ValueError, IndexError, StopIteration) as problem:
            # Of another version of hearth; the other tables are of use.
            text = f"What is there cannot be read: {problem!r}.\n"
        if text:
            print(f"## {title}\n\n{text}")


if __name__ == "__main__":
    main()
