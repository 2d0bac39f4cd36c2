"""Tables and the plot of docs/benchmarks.md, written between marks, so that the prose around them stays."""

import re
from collections.abc import Callable, Sequence
from math import ceil, isfinite
from statistics import median
from typing import Final

from bench import store
from bench.further import BY_KEY, BY_TOKEN, EVERYTHING_ON, READ_EACH_TIME, ROUTES, ROWS, STARTED, STARTS
from bench.jobs import JOBS
from bench.measure import Result, Run
from bench.servers import CONTENDERS
from bench.store import Facts
from bench.timing import requests_to_tell
from tests.support.server import PROJECT

PAGE: Final = PROJECT / "docs" / "benchmarks.md"
PLOT: Final = PROJECT / "docs" / "benchmarks.svg"
# job → contender → the least ratio, from the issue that asked for all this.
THRESHOLDS: Final = {
    "static": {"bare": 5, "floor": 0.60, "litestar": 2.5, "plain": 0.95},
    "login": {"bare": 5, "floor": 0.50, "litestar": 5},
    "page": {"bare": 6, "floor": 0.50, "litestar": 5},
    "by_id": {"bare": 8, "floor": 0.55, "litestar": 8},
    "order": {"bare": 5, "floor": 0.50},
    "cached": {"bare": 6, "floor": 0.60},
}


def write_report() -> None:
    """Whatever was measured; a part that was not keeps its last table."""
    text = PAGE.read_text()
    for name, render in _PARTS.items():
        found = store.find(name)
        if found is None:
            continue
        for mark, lines in render(*found).items():
            text = _between_marks(text, mark, "\n".join(lines))
    PAGE.write_text(text)
    found = store.find("jobs")
    if found is not None:
        _plot(found[0])


def _between_marks(text: str, mark: str, table: str) -> str:
    begin, end = f"<!-- bench:{mark} -->", f"<!-- /bench:{mark} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"docs/benchmarks.md has no place for {mark}")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, align, *rows)]


def _spread(ratios: Sequence[float]) -> str:
    """The median, and from where to where the rounds went."""
    if not ratios:
        return "–"
    middle = median(ratios)
    digits = 2 if middle < 10 else 1
    return f"{middle:.{digits}f} ({min(ratios):.{digits}f}–{max(ratios):.{digits}f})"


def _problems(result: Result) -> list[str]:
    if not result.problems:
        return ["", "Problems while measuring: none."]
    return ["", f"**Problems while measuring: {len(result.problems)}**", "", *(f"- {p}" for p in result.problems[:40])]


def _title(contender: str) -> str:
    return CONTENDERS[contender].title if contender in CONTENDERS else contender


def _jobs(result: Result, facts: Facts) -> dict[str, list[str]]:
    names = list(next(iter(result.runs.values())))
    rates, ratios, costs, waits, memory = [], [], [], [], []
    for job in result.runs:
        title = JOBS[job].title
        rates.append([title, *(_number(result.value(job, name)) for name in names)])
        ratios.append([title, *(_spread(result.ratios(job, name, "floor")) for name in names)])
        costs.append([title, *(_number(result.value(job, name, lambda run: run.cpu_us)) for name in names)])
        waits.append([title, *(_number(result.value(job, name, lambda run: run.p99_ms), 1) for name in names)])
    last = list(result.runs)[-1]
    memory.append(
        ["memory (PSS), MB", *(_number(result.value(last, name, lambda run: run.memory_mb)) for name in names)]
    )
    titles = [_title(name) for name in names]
    return {
        "about": [
            f"Measured on {facts['date']}, commit {facts['commit']}: {facts['machine']}.",
            f"{facts['versions']}.",
            f"{facts['rounds']} rounds of {facts['seconds']} s each; every contender has {facts['routes']} routes before"
            " the measured ones.",
        ],
        "ratios": [*_table(["× floor", *titles], ratios), *_problems(result)],
        "rates": _table(["requests/s", *titles], rates),
        "costs": _table(["CPU µs a request", *titles], [*costs, *memory]),
        "waits": _table(["p99, ms", *titles], waits),
        "acceptance": _acceptance(result),
    }


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _acceptance(result: Result) -> list[str]:
    rows = []
    for job, thresholds in THRESHOLDS.items():
        for contender, least in thresholds.items():
            ratios = result.ratios(job, "ours", contender)
            if ratios:
                verdict = "reached" if median(ratios) >= least else "**not reached**"
                rows.append([JOBS[job].title, _title(contender), f"{least:g} ×", _spread(ratios), verdict])
    return _table(["job", "against", "at least", "measured", ""], rows)


def _startup(_: Result, facts: Facts) -> dict[str, list[str]]:
    rows = []
    for name in STARTED:
        seconds, memory_mb = facts["start_seconds"][name], facts["memory_mb"][name]
        rows.append([_title(name), _spread(seconds), _number(median(memory_mb))])
    return {"startup": _table([f"median of {STARTS} starts", "s to the first answer", "PSS, MB"], rows)}


def _routes(result: Result, facts: Facts) -> dict[str, list[str]]:
    variants = list(result.runs["1"])
    rows = []
    for variant in variants:
        first = result.value("1", variant) or 0
        values = [result.value(str(count), variant) or 0 for count in ROUTES]
        seconds = [facts["start_seconds"][variant][str(count)] for count in ROUTES]
        rows.append(
            [_title(variant), *(f"{v:,.0f} ({v / first:.2f})" for v in values), f"{seconds[0]:.2f}–{seconds[-1]:.2f}"]
        )
    head = ["requests/s as the last of … routes (× alone)", *(f"{count:,}" for count in ROUTES), "start-up, s"]
    return {"routes": [*_table(head, rows), *_problems(result)]}


def _rows(result: Result, facts: Facts) -> dict[str, list[str]]:
    rows = []
    for place in ("first page", "last page but one", "cursor page"):
        for name in ("floor", "ours"):
            values = [result.value(f"{count} {place}", name, lambda run: run.p50_ms) for count in ROWS]
            if any(values):
                rows.append([f"{place}, {_title(name)}", *(f"{v:.1f}" if v else "–" for v in values)])
    head = [f"p50 in ms, {facts['connections']} connections", *(f"{count:,} users" for count in ROWS)]
    return {"rows": [*_table(head, rows), *_problems(result)]}


def _switches(result: Result, facts: Facts) -> dict[str, list[str]]:
    variants = list(next(iter(result.runs.values())))
    rows = [
        [
            f"{variant} ({', '.join(f'`{k}={v}`' for k, v in facts['env'][variant].items())})"
            if 0 < len(facts["env"][variant]) < 2
            else variant,
            *(_spread(result.ratios(job, variant, EVERYTHING_ON)) for job in JOBS),
        ]
        for variant in variants
    ]
    rates = ["everything on, requests/s", *(_number(result.value(job, EVERYTHING_ON)) for job in JOBS)]
    return {
        "switches": [
            *_table(["× everything on", *(j.title for j in JOBS.values())], [rates, *rows[1:]]),
            *_problems(result),
        ]
    }


def _keys(result: Result, _: Facts) -> dict[str, list[str]]:
    rows = [
        [
            JOBS[job].title,
            *(_number(result.value(job, caller)) for caller in (BY_TOKEN, BY_KEY)),
            *(_number(result.value(job, caller, lambda run: run.cpu_us), 1) for caller in (BY_TOKEN, BY_KEY)),
            _spread(result.ratios(job, BY_TOKEN, BY_KEY)),
        ]
        for job in result.runs
    ]
    head = [
        "",
        "by access token, requests/s",
        "by API key, requests/s",
        "CPU µs by token",
        "by key",
        "a key costs × a token",
    ]
    return {"keys": [*_table(head, rows), *_problems(result)]}


def _identity(result: Result, facts: Facts) -> dict[str, list[str]]:
    used = facts["hash"]
    memory_mib = int(used["m"]) // 1024
    rows = []
    for name, by_variant in result.runs.items():
        published = facts["keycloak"][name]
        for variant in by_variant:
            rate = result.value(name, variant)
            values = [result.value(name, variant, of) for of in (lambda r: r.cpu_us, lambda r: r.p50_ms, _p99)]
            rows.append(
                [
                    f"{name}, {variant}" if len(by_variant) > 1 else name,
                    _number(rate, 1),
                    *(_number(value, digits) for value, digits in zip(values, (0, 1, 1), strict=True)),
                    f"{published}",
                    f"{(rate or 0) / published:.1f}",
                ]
            )
    head = ["one core", "requests/s", "CPU µs a request", "p50, ms", "p99, ms", "Keycloak, a vCPU", "× Keycloak"]
    return {
        "identity": [
            f"Measured on {facts['date']}, commit {facts['commit']}: {facts['machine']}. {facts['rounds']} rounds of"
            f" {facts['log_in_seconds']} s of log-ins and {facts['refresh_seconds']} s of refreshes,"
            f" {facts['callers']} connections; {used['algorithm']} with {memory_mib} MiB, {used['t']} iterations,"
            f" {used['p']} lane.",
            "",
            *_table(head, rows),
            *_problems(result),
        ],
        "enumeration": _enumeration(facts),
        "revocation": _revocation(),
    }


def _p99(run: Run) -> float:
    return run.p99_ms


def _enumeration(facts: Facts) -> list[str]:
    rows = []
    for timed in facts["timings"]:
        about = f"{timed['rounds']} rounds, median {timed['median_us']:,.0f} µs"
        rows.append([f"**{timed['title']}**: {timed['base']} ({about}) against", *[""] * 6])
        rows += [[f"… {found['title']}", *_told_apart(timed, found)] for found in timed["against"]]
    head = [
        "",
        "median, µs (95 %)",
        "10th percentile, µs (95 %)",
        "σ, µs",
        "to tell",
        "of the quickest 90 %",
        "throttle",
    ]
    return _table(head, rows)


def _told_apart(timed: Facts, found: Facts) -> list[str]:
    clear = _is_clear(found["low"], found["high"])
    # What was not seen may be as large as the interval allows.
    largest = max(abs(found["low"]), abs(found["high"]))
    differences = (found["mean"], found["quick_mean"]) if clear else (largest, largest)
    deviations = found["deviation"], found["quick_deviation"]
    needed = [requests_to_tell(*pair) for pair in zip(differences, deviations, strict=True)]
    seconds = min(needed) / timed["allowed"] * timed["window_seconds"]
    return [
        _interval(found["median"], found["low"], found["high"]),
        _interval(found["early"], found["early_low"], found["early_high"]),
        _number(found["deviation"]),
        *(f"{'' if clear else '> '}{ceil(number):,}" if isfinite(number) else "–" for number in needed),
        f"{timed['allowed']} in {_duration(timed['window_seconds'])}: {'' if clear else '> '}{_duration(seconds)}",
    ]


def _is_clear(low: float, high: float) -> bool:
    return low > 0 or high < 0


def _interval(middle: float, low: float, high: float) -> str:
    told = f"{middle:+,.0f} ({low:+,.0f} … {high:+,.0f})"
    return f"**{told}**" if _is_clear(low, high) else told


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"


def _revocation() -> list[str]:
    """What `switches` measured, said again."""
    found = store.find("switches")
    if found is None:
        return ["Not measured with these: see the table of switches."]
    result, _ = found
    kept, read = ((result.value("login", v, lambda r: r.cpu_us) or 0) for v in (EVERYTHING_ON, READ_EACH_TIME))
    rates = [result.value("login", variant) for variant in (EVERYTHING_ON, READ_EACH_TIME)]
    return [
        f"“Log-in checked” takes {kept:,.0f} µs of the processor with remembered principals ({_number(rates[0])}"
        f" requests/s), and {read:,.0f} µs when each request reads its caller ({_number(rates[1])} requests/s,"
        f" {_spread(result.ratios('login', READ_EACH_TIME, EVERYTHING_ON))} ×): both refuse what was revoked from the"
        f" answer to the revocation on, so that this is worth {read - kept:,.0f} µs a request.",
    ]


def _sqlite(result: Result, _: Facts) -> dict[str, list[str]]:
    rows = [
        [
            JOBS[job].title,
            _number(result.value(job, "floor")),
            _number(result.value(job, "ours")),
            _spread(result.ratios(job, "ours", "floor")),
        ]
        for job in result.runs
    ]
    return {
        "sqlite": [
            *_table(["SQLite", "floor, requests/s", "Undercroft, requests/s", "ratio"], rows),
            *_problems(result),
        ]
    }


_PARTS: Final[dict[str, Callable[[Result, Facts], dict[str, list[str]]]]] = {
    "jobs": _jobs,
    "startup": _startup,
    "routes": _routes,
    "rows": _rows,
    "switches": _switches,
    "keys": _keys,
    "identity": _identity,
    "sqlite": _sqlite,
}


def _plot(result: Result) -> None:
    import matplotlib as mpl  # its import takes as long as a round; only a report needs it
    from matplotlib import pyplot as plt

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "undercroft"  # the same picture from the same numbers
    mpl.rcParams["svg.fonttype"] = "none"
    jobs = list(result.runs)
    names = [name for name in next(iter(result.runs.values())) if name != "floor"]
    colours = {"ours": "#1f4e79"} | dict(
        zip((n for n in names if n != "ours"), ("#c58b3b", "#dfc08f", "#7a9e7e", "#b5655b", "#8d86a3"), strict=False)
    )
    figure, axes = plt.subplots(figsize=(10, 4.2))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        heights = [median(result.ratios(job, name, "floor") or [0]) for job in jobs]
        at = [n + (place - (len(names) - 1) / 2) * width for n in range(len(jobs))]
        bars = axes.bar(at, heights, width, label=_title(name), color=colours[name])
        axes.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=6, padding=1)
    axes.axhline(1, color="#444444", linewidth=0.8)
    axes.set_xticks(range(len(jobs)), [JOBS[job].title.replace(", ", ",\n") for job in jobs], fontsize=8)
    axes.set_ylabel("requests per second, × floor")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, 1.12))
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


def quick_table(result: Result) -> str:
    lines = []
    for job, contenders in result.runs.items():
        first = next(iter(contenders))
        for name, runs in contenders.items():
            ratios = result.ratios(job, name, first)
            lines.append(
                f"{job:8} {name:11}{median(r.per_second for r in runs):>9,.0f}/s"
                f"  {median(ratios):7.3f} ({min(ratios):.3f}-{max(ratios):.3f}) of {first}"
                f"  {median(r.cpu_us for r in runs):8.1f} us CPU  p99 {median(r.p99_ms for r in runs):7.2f} ms"
                f"  {runs[-1].memory_mb:4.0f} MB"
            )
    return "\n".join([*lines, *(f"!! {problem}" for problem in result.problems)]) + "\n"
