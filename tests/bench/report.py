"""Results as text and as a picture. Decides nothing and measures nothing."""
import configparser
import math
import os
import statistics
import textwrap
from html import escape

import meters

# What is known of budgets above their goals, by the names that the report gives them.
NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes.ini")
# What a note tells, in the order in which it is told.
NOTE_PARTS = ("profile", "tried", "next")
WIDTH = 118

# What stands above the rows.
LEGEND = ("p50 and p99 are wrk's, of its whole life, with the clients' coming in (of the row open: its client's, from when "
          "requests were due); core: how much of a core was used; a budget's interval has the true median in it with 90 % confidence at "
          "least (with fewer than five rounds: their range), by one look; a row that was played on was looked at up to "
          "three times, and may stop where chance had it; open has five times as many rounds, of one second")
# How sure an interval is to have the true median, and of how many answers a round must be to have a p99.
SURE, ENOUGH = 0.90, 1000

# Figures with a column of their own: name, title, form.
COLUMNS = (("cpu", "CPU us/req", "{:.2f}"), ("rps", "requests/s", "{:.0f}"), ("p50", "p50 us", "{:.0f}"),
           ("p99", "p99 us", "{:.0f}"), ("switches", "switches/req", "{:.4f}"), ("pss_kib", "PSS KiB", "{:.0f}"))
# Figures that are taken once, and their names.
ONCE = (("bytes_per_idle", "bytes per idle connection"), ("cpu_at_rest", "of a core at rest"),
        ("offered_rps", "requests/s offered"), ("start_ms", "ms from start to the first answer"),
        ("reload_ms", "ms of a reload"))


def listing(rows):
    wide = max(len(row.name) for row in rows)
    return "\n".join(f"{row.name:{wide}}  {row.what}: {', '.join(row.contestants)}" for row in rows)


def interval(values):
    """From where to where the true median lies, SURE at least, by the order of the rounds' values; with fewer than five,
    which can't be so sure, their least and most.
    """
    count, values = len(values), sorted(values)
    # The median is below the k-th smallest, or above the k-th largest, as a fair coin shows a side less than k times.
    below = lambda k: sum(math.comb(count, heads) for heads in range(k)) / 2 ** count
    k = max((k for k in range(1, count // 2 + 1) if 1 - 2 * below(k) >= SURE), default=1)
    return values[k - 1], values[-k]


def spanned(values):
    """The interval of the median in a table."""
    low, high = interval(values)
    return f"{low:.2f} to {high:.2f}"


def verdict(value, low, high, budget):
    """What a value is by its budget, and whether that is sure of all that the true one may be."""
    if value <= budget.goal:
        said, sure, lines = "at its goal", high <= budget.goal, f"{budget.goal:g}"
    else:
        within = value <= budget.gate
        said, sure = ("within its gate", high <= budget.gate) if within else ("above its gate", low > budget.gate)
        lines = f"{budget.gate:g}; goal {budget.goal:g}"
    span = f" ({low:.3g} to {high:.3g})" if low < high else ""
    return f"{value:.3g}{span}, {said}{'' if sure else ', not surely'} ({lines})"


def budget_name(budget):
    if hasattr(budget, "whom"):
        return f"{budget.figure} of {budget.who} / {budget.whom}"
    return f"{budget.who} {budget.figure}"


def read_notes(path=NOTES):
    """The notes: ROW: BUDGET to what is told of it."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=(":",), comment_prefixes=("#",))
    with open(path) as f:
        parser.read_file(f)
    return {name: dict(parser[name]) for name in parser.sections()}


def noted(row, budget, notes):
    """What is known of a budget that is above its goal, below its line."""
    note = notes.get(f"{row.name}: {budget_name(budget)}")
    if not note:
        return [f"  nothing is known of that yet: {os.path.basename(NOTES)} has no note"]
    words = "; ".join(f"{part}: {' '.join(note[part].split())}" for part in NOTE_PARTS)
    return textwrap.wrap(words, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def rounds_ratios(result, who, whom, figure):
    """The rounds' ratios of one contestant's figure to another's."""
    ours, theirs = (result["contestants"].get(name, {}).get("rounds") or [] for name in (who, whom))
    return [one[figure] / two[figure] for one, two in zip(ours, theirs) if two[figure]]


def standing(budget, result):
    """A budget's value, and from where to where the true one lies; nothing where it was not measured."""
    if hasattr(budget, "whom"):
        values = rounds_ratios(result, budget.who, budget.whom, budget.figure)
    else:
        us = result["contestants"].get(budget.who, {})
        values = [one[budget.figure] for one in us.get("rounds") or [] if budget.figure in one]
        if not values and budget.figure in us.get("once", {}):
            values = [us["once"][budget.figure]]
    return (statistics.median(values), *interval(values)) if values else None


def is_undecided(budget, result):
    """Whether on either side of its gate a budget may truly be."""
    stands = standing(budget, result)
    return stands is not None and stands[1] <= budget.gate < stands[2]


def judged(row, result, notes):
    """A line for each budget of a row: what it is, and how it stands; with its note if it is above its goal."""
    lines = []
    for budget in row.budgets:
        found = standing(budget, result)
        if found:
            lines.append(f"budget: {budget_name(budget)}: {verdict(*found, budget)}")
            if found[0] > budget.goal:
                lines += noted(row, budget, notes)
    return lines


def misses(row, result):
    """The budgets of a row that are above their gates."""
    found = [(budget, standing(budget, result)) for budget in row.budgets]
    return [budget_name(budget) for budget, stands in found if stands and stands[0] > budget.gate]


def paired(row, result):
    """A line for each pair of a row's contestants."""
    found = [(who, whom, rounds_ratios(result, who, whom, "cpu")) for who, whom in row.pairs]
    return [f"cpu of {who} / {whom}: {statistics.median(ratios):.3f}; rounds {min(ratios):.3f} to {max(ratios):.3f}"
            for who, whom, ratios in found if ratios]


def title(row, result):
    """What a row is, and what its ratios are to: its reference may have been left out, or have failed."""
    name, reference = f"{row.name}: {result['what']}", result["reference"]
    if row.kind == "start":
        return name
    told = result["contestants"].get(reference)
    if told is None:
        return f"{name}; no ratios: {reference} was left out"
    if "fault" in told:
        return f"{name}; no ratios: {reference} failed"
    return f"{name}; ratios to {reference}"


def spoiled(result):
    """Of an open loop: how often its client was late itself, and whether rounds count that it has spoiled."""
    rounds = list(zip(*(told["rounds"] for told in result["contestants"].values() if "fault" not in told)))
    looks = [one for of_all in rounds for one in of_all if "spoiled_share" in one]
    if not looks:
        return []
    share, late = (max(one[figure] for one in looks) for figure in ("spoiled_share", "most_late"))
    lines = [f"{name}: {statistics.median(one['p99_tenths'] for one in told['rounds']):.0f} us are the p99 of a tenth of a second"
             for name, told in result["contestants"].items() if "fault" not in told]
    lines += [f"the client was late itself for {share:.2%} of a round's requests at most, by {late / 1000:.1f} ms at most"]
    void = sum(any(map(meters.is_void, of_all)) for of_all in rounds)
    if void:
        lines.append(f"VOID, and counted all the same, since playing again did not help: {void} of {len(rounds)} rounds (more than "
                     f"{meters.MOST_SPOILED:.0%})")
    return lines


def core(told):
    """How much of a core a contestant used."""
    return statistics.median(one["cpu"] * one["rps"] / 1e6 for one in told["rounds"])


def has_p99(told):
    """Whether each of its rounds has answers enough."""
    return all(one["requests"] >= ENOUGH for one in told["rounds"])


def cells(name, told, reference):
    """A contestant's line of a table."""
    spread, line = told["ratio"].get("cpu"), [name]
    for figure, _, form in COLUMNS:
        value, ratio = told["median"].get(figure), told["ratio"].get(figure)
        if figure == "p99" and not has_p99(told):
            value = ratio = None
        if figure == "p99" and ratio and not has_p99(reference):
            ratio = None
        line += ["-" if value is None else form.format(value), f"{ratio[0]:.3f}" if ratio else "-"]
        if figure == "cpu":
            line += [f"{spread[1]:.3f}-{spread[2]:.3f}" if spread else "-", f"{core(told):.2f}"]
    return line


def table(row, result):
    rounds = max((len(told.get("rounds", [])) for told in result["contestants"].values()), default=0)
    head = [f"{rounds} rounds", "CPU us/req", "ratio", "(range)", "core", "requests/s", "ratio", "p50 us", "ratio", "p99 us",
            "ratio", "switches/req", "ratio", "PSS KiB", "ratio"]
    reference = result["contestants"].get(result["reference"])
    lines = [head] + [cells(name, told, reference) for name, told in result["contestants"].items()
                      if "fault" not in told and told["median"]]
    if len(lines) == 1:
        return []
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(cell.ljust(wide[0]) if column == 0 else cell.rjust(wide[column])
                      for column, cell in enumerate(line)).rstrip() for line in lines]


def rounds_played(results):
    """How many rounds the rows have: a row that its rounds left undecided has more than others."""
    counts = [len(told["rounds"]) for row in results["rows"].values() for told in row["contestants"].values() if told.get("rounds")]
    least, most = min(counts, default=results["rounds"]), max(counts, default=results["rounds"])
    return f"{least}" if least == most else f"{least} to {most}"


def text(results, rows, notes=None):
    facts, notes = results["machine"], read_notes() if notes is None else notes
    lines = ["", f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}; {facts['rustc']}",
             "; ".join(facts[name] for name in ("ostler", "nginx", "haproxy", "httpd", "wrk")),
             f"{rounds_played(results)} rounds of {results['seconds']} s at least; load average {facts['load_before']} before, "
             f"{facts.get('load_after', '-')} after"] + textwrap.wrap(LEGEND, WIDTH)
    for row in rows:
        result = results["rows"].get(row.name)
        if not result:
            continue
        lines += ["", title(row, result)] + table(row, result)
        for name, told in result["contestants"].items():
            if "fault" in told:
                lines.append(f"FAILED: {told['fault']}")
                continue
            said = [f"{told['once'][figure]:.4g} {title}" for figure, title in ONCE if figure in told["once"]]
            if row.kind == "start":
                said.append(f"{told['once']['pss_kib']:.0f} KiB of memory (PSS) at start")
            if said:
                lines.append(f"{name}: {', '.join(said)}")
        lines += spoiled(result) + paired(row, result) + judged(row, result, notes)
    return "\n".join(lines)


# Where the table stands in a file.
MARKS = ("<!-- scripts/bench --readme -->", "<!-- end of scripts/bench --readme -->")


def markdown(results, rows):
    """The table of the README: CPU per request as a ratio to nginx as it comes, row by row, and what has no ratio to it."""
    told = lambda row, name: results["rows"].get(row, {}).get("contestants", {}).get(name, {})

    def best(row, *names):
        """The least ratio of a contestant's settings."""
        ratios = [told(row, name)["ratio"]["cpu"][0] for name in names if "cpu" in told(row, name).get("ratio", {})]
        return f"{min(ratios):.2f}" if ratios else "-"

    def ours(row):
        """Our ratio, and from where to where the true one lies."""
        values = rounds_ratios(results["rows"][row], "ostler", "nginx", "cpu")
        return f"{statistics.median(values):.2f} ({spanned(values)})" if values else "-"

    lines = ["| work | ostler | HAProxy | httpd | nginx, other buffers |", "|---|---|---|---|---|"]
    for row in rows:
        if row.name in results["rows"] and row.reference == "nginx" and not row.pairs:
            lines.append(f"| {row.what} | {ours(row.name)} | {best(row.name, 'haproxy', 'haproxy-splice')} | "
                         f"{best(row.name, 'httpd')} | {best(row.name, 'nginx-streams', 'nginx-large')} |")
    drivers = [f"`{name}` costs {best(name, f'ostler-{name}')} ({best(name, f'relay-{name}')})" for name in ("worker", "prefork")
               if best(name, f"ostler-{name}") != "-"]
    said = [f"Against httpd's own drivers {' and '.join(drivers)}; in brackets what the process model costs by itself, as a relay "
            "that waits in the same way and parses nothing shows."] if drivers else []
    blind = rounds_ratios(results["rows"].get("status", {"contestants": {}}), "ostler", "ostler-blind", "cpu")
    if blind:
        said.append(f"`ExtendedStatus On` costs {statistics.median(blind):.2f} of off ({spanned(blind)}).")
    late = rounds_ratios(results["rows"].get("open", {"contestants": {}}), "ostler", "nginx", "p99_tenths")
    if late:
        said.append(f"At equal load, half of what the slowest can do, the p99 of a tenth of a second is "
                    f"{statistics.median(late):.2f} of nginx's ({spanned(late)}).")
    idle, start = told("idle-5000", "ostler").get("once", {}), told("start", "ostler").get("once", {})
    if idle:
        said.append(f"An idle kept-alive connection takes {idle['bytes_per_idle']:.0f} bytes.")
    if start:
        said.append(f"A start of two children of 25 threads takes {start['pss_kib'] / 1024:.1f} MiB and {start['start_ms']:.0f} ms to "
                    f"the first response, a reload {start['reload_ms']:.0f} ms (medians).")
    facts = results["machine"]
    said.append(f"In other brackets: where the true median lies with {SURE * 100:.0f} % confidence at least, by one look (rows that were undecided had up to three). {rounds_played(results)} interleaved rounds of {results['seconds']} s or more on {facts['cores']} cores ({facts['cpu']}, "
                f"Linux {facts['kernel']}), {facts['nginx'].removeprefix('nginx version: ')}.")
    return "\n".join(lines + [""] + textwrap.wrap(" ".join(said), 128, break_on_hyphens=False))


def put_table(text, results, rows):
    """A text with the table between its marks."""
    begin, end = (text.find(mark) for mark in MARKS)
    if not 0 <= begin < end:
        raise SystemExit(f"no lines {MARKS[0]} and {MARKS[1]} for the table to stand between")
    return text[:begin + len(MARKS[0])] + "\n" + markdown(results, rows) + "\n" + text[end:]


COLOURS = {"ostler": "#2166ac", "nginx": "#4d9221", "haproxy": "#b2abd2", "httpd": "#d6604d", "relay": "#999999"}


def svg(results, rows):
    """CPU per request of everybody as a ratio to the row's reference, a group of bars to a row."""
    left, scale, bar, most = 250, 180, 13, 3.0
    parts, y = [], 58
    for row in rows:
        result = results["rows"].get(row.name)
        if not result:
            continue
        bars = [(name, told["ratio"]["cpu"]) for name, told in result["contestants"].items()
                if "fault" not in told and "cpu" in told["ratio"]]
        if not bars:
            continue
        top = y
        for name, (ratio, low, high) in bars:
            length = min(ratio, most) * scale
            colour = COLOURS[name.split("-")[0]]
            parts.append(f'<text x="{left - 6}" y="{y + 10}" text-anchor="end">{escape(name)}</text>'
                         f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{colour}"/>'
                         f'<path d="M{left + min(low, most) * scale:.1f} {y + 5}H{left + min(high, most) * scale:.1f}" '
                         f'stroke="#000"/>'
                         f'<text x="{left + max(length, min(high, most) * scale) + 6:.1f}" y="{y + 10}">{ratio:.2f}'
                         f'{" (beyond the edge)" if ratio > most else ""}</text>')
            y += bar
        parts.append(f'<text x="6" y="{top + 10}" font-weight="bold">{escape(row.name)}</text>')
        for budget in row.budgets:
            if getattr(budget, "whom", None) == row.reference and budget.figure == "cpu":
                x = left + budget.gate * scale
                parts.append(f'<path d="M{x:.1f} {top - 2}V{y}" stroke="#c00" stroke-dasharray="2 2"/>')
        y += 9
    facts = results["machine"]
    wide = left + most * scale + 150
    one = left + scale
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {y + 10}" width="{wide:.0f}" '
            f'height="{y + 10}" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="6" y="18" font-size="14">CPU per request, as a ratio to the first of each row '
            f'(shorter is better)</text>'
            f'<text x="6" y="36">{escape(facts["ostler"])}; {escape(facts["nginx"])}; {rounds_played(results)} rounds of '
            f'{results["seconds"]} s. Thin line: range over the rounds; red: the gate.</text>'
            f'<path d="M{one} 46V{y}" stroke="#4d9221"/>' + "".join(parts) + "</svg>\n")
