"""Does the cost of a request grow with what only waits beside it? And: is the work spread, is memory given back?

A curve is one load (64 clients, 1 KiB) at several sizes of something that has nothing to do with it: idle connections,
children, virtual hosts, ProxyPass rules. The daemons of all its points are alive together and take turns round by round,
so that a machine that changes its mind meets all alike; a point's ratio is the median of its rounds' ratios to the
curve's first point. Where a curve has a reference (nginx), that one is measured at the same sizes in the same rounds: it
has its own first point, and each point has a ratio of ours to its. So what any server pays at that size, such as a context
switch for each wake-up where more processes than clients share a core, can be told from what is ours. Each figure that is
asked about has a budget.
"""
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from html import escape

import contestants
import machine
import meters
from contestants import Failed, Server
from report import COLOURS
from rows import KIB, Row

HERE = os.path.dirname(os.path.abspath(__file__))
# Threads give their buffers back when they have been parked for 10 s.
REST = 13
# Seconds in which children that have all their clients at once come to share the work.
SETTLE = 3
# Seconds in which nothing happens, while it is looked what that costs.
REST_LOOK = 3
# How often spread and burst are measured: their verdict is the median.
TIMES = 3
# The share of all workers that are to be busy in spread, and what it may turn out to be.
HALF, ABOUT_HALF = 0.5, (0.4, 0.6)
# Budgets, what a figure may be at most: of a point its ratio to the reference or, without one, to the first point; of
# spread the distance of a child's busy workers from even; of burst a child's memory after it as a ratio to before.
OF_REFERENCE, OF_FIRST, FROM_EVEN, OF_BEFORE = 1.0, 1.15, 0.2, 1.1
OUR_COLOUR, REFERENCE_COLOUR = COLOURS["ostler"], COLOURS["nginx"]


@dataclass(frozen=True)
class Curve:
    name: str
    what: str
    sizes: tuple
    row: object  # size -> Row
    extra: object = lambda size: ""  # size -> lines of configuration
    reference: str = ""  # a contestant that is measured beside


def hosts(count):
    """Virtual hosts by name, if more than the main server; the last of them is asked for."""
    names = [f"h{number}.bench.test" for number in range(1, count)] + ["bench.test"]
    return "".join(f"<VirtualHost *>\nServerName {name}\nProxyPass / http://127.0.0.1:@origin@/\n</VirtualHost>\n"
                   for name in names if count > 1)


def rules(count):
    """ProxyPass rules that do not match, before the one that does."""
    return "".join(f"ProxyPass /rule/{number}/ http://127.0.0.1:@origin@/\n" for number in range(1, count))


PLAIN = Row("curve", "", ("ostler",))
CURVES = (
    Curve("connections", "idle connections beside, 2 children", (0, 1000, 5000, 15000),
          lambda size: replace(PLAIN, idle=size, children=2), reference="nginx"),
    Curve("children", "children, on one core, 64 clients", (1, 8, 32, 128), lambda size: replace(PLAIN, children=size),
          reference="nginx"),
    Curve("hosts", "virtual hosts by name", (1, 100, 1000, 10000), lambda size: PLAIN, hosts),
    Curve("rules", "ProxyPass rules before the one that matches", (1, 100, 1000), lambda size: PLAIN, rules),
)


def hold(server, row, cores):
    """Connections that only wait; they go when the process ends."""
    holder = subprocess.Popen(
        ["taskset", "-c", cores, sys.executable, os.path.join(HERE, "idle.py"), str(server.port), str(row.idle),
         row.target, str(row.size)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if holder.stdout.readline().strip() != "ready":
        raise Failed(f"{row.idle} idle connections: {holder.stderr.read()[-300:]}")
    return holder


def load(row, server, origin, seconds, cores):
    """The figures of a round of wrk."""
    process = meters.wrk(row, server.port, round(row.lead + seconds) + meters.MORE, cores)
    return meters.loaded(row, server, origin, process, row.lead, seconds)


class Field:
    """An origin, and servers that end with it."""

    def __init__(self, tools, cores):
        self.tools, (self.proxy_cores, self.client_cores) = tools, cores
        self.servers, self.holders = [], []

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ostler-bench-")
        os.chmod(self.directory.name, 0o755)
        self.origin = Server("origin", [self.tools["bench-origin"]], self.client_cores, self.directory.name, speaks=True)
        return self

    def add(self, row, extra="", name="ostler"):
        """A contestant with its files in a directory of its own, warm."""
        home = os.path.join(self.directory.name, str(len(self.servers)))
        os.makedirs(home)
        os.chmod(home, 0o755)
        server = contestants.start(name, row, home, self.origin.port, self.tools, self.proxy_cores, extra, own=True)
        server.board = os.path.join(home, name, "scoreboard")
        self.servers.append(server)
        load(row, server, self.origin, 1, self.client_cores)
        return server

    def idle(self, server, row):
        """Puts the row's idle connections beside."""
        self.holders.append(hold(server, row, self.client_cores))
        return self.holders[-1]

    def __exit__(self, *_):
        try:
            contestants.stop_all(self.servers + [self.origin], self.holders)
        finally:
            self.directory.cleanup()


def draw(curve, tools, cores, rounds, seconds):
    """The points of a curve; see `points`."""
    names = ("ostler", curve.reference) if curve.reference else ("ostler",)
    with Field(tools, cores) as field:
        # Neighbours in the order of a round are ours and the reference at the same size.
        places = [(size, name) for size in curve.sizes for name in names]
        rows = [curve.row(size) for size, _ in places]
        for (size, name), row in zip(places, rows):
            server = field.add(row, curve.extra(size).replace("@origin@", str(field.origin.port)), name)
            if row.idle:
                field.idle(server, row)
        costs, switches = [[] for _ in places], [[] for _ in places]
        for number in range(rounds):
            turn = number % len(places)
            for place in list(range(turn, len(places))) + list(range(turn)):
                seen = load(rows[place], field.servers[place], field.origin, seconds, field.client_cores)
                costs[place].append(seen["cpu"])
                switches[place].append(seen["switches"])
        before = [meters.cpu(server.pid) for server in field.servers]
        time.sleep(REST_LOOK)
        once = [{"switches": statistics.median(switched), "cpu_at_rest": (meters.cpu(server.pid) - cpu) / REST_LOOK,
                 "pss_kib": meters.pss(server.pid)}
                for server, cpu, switched in zip(field.servers, before, switches)]
        told = {name: points(curve.sizes, costs[place::len(names)], once[place::len(names)])
                for place, name in enumerate(names)}
    return beside(told["ostler"], told.get(curve.reference))


def points(sizes, costs, once):
    """What a contestant's points are: size, CPU per request in each round and their median, its ratio to the first
    point, and what was looked at once.
    """
    return [{"size": size, "cpu": statistics.median(cost), "rounds": cost, "ratio": ratio(cost, costs[0])} | look
            for size, cost, look in zip(sizes, costs, once)]


def ratio(costs, others):
    """The median of the rounds' ratios."""
    return statistics.median(one / two for one, two in zip(costs, others))


def beside(ours, theirs):
    """Our points; with a reference each has the reference's beside it, and its ratio to that."""
    if not theirs:
        return ours
    return [one | {"of_reference": ratio(one["rounds"], two["rounds"]), "reference": two} for one, two in zip(ours, theirs)]


def children_of(server, tools):
    """The children that serve, as the scoreboard tells."""
    done = subprocess.run([tools["ostler"], "status", "--scoreboard", server.board, "--json"],
                          capture_output=True, text=True, timeout=30)
    told = json.loads(done.stdout)
    return [child for child in told["children"] if child["stage"] == "ready"]


def spread(tools, cores, seconds):
    """How evenly four children share an open-loop load that keeps half of their workers busy, each time with new clients."""
    row = replace(PLAIN, children=4, threads=25, delay=10, clients=160)
    with Field(tools, cores) as field:
        server = field.add(row)
        # Of a client that has the server for itself.
        latency = load(replace(row, clients=1), server, field.origin, 1, field.client_cores)["p50"]
        rate = round(HALF * row.children * row.threads / latency * 1e6)
        runs = [shares(field, server, row, rate, seconds) for _ in range(TIMES)]
    return {"latency_us": latency, "offered_rps": rate, "runs": runs} | {
        figure: statistics.median(run[figure] for run in runs) for figure in ("busy_share", "uneven_busy", "uneven_requests")}


def shares(field, server, row, rate, seconds):
    """Busy workers on average and requests, by child, under so many requests per second."""
    requests = lambda: {child["slot"]: child["latency"]["count"] for child in children_of(server, field.tools)}
    client = meters.open_loop(
        field.tools["bench-open-loop"], row, server.port, rate, SETTLE, seconds, field.client_cores)
    try:
        time.sleep(SETTLE)
        before = requests()
        busy, looks = dict.fromkeys(before, 0), 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for child in children_of(server, field.tools):
                busy[child["slot"]] += child["busy"]
            looks += 1
            time.sleep(0.05)
        served = [count - before[slot] for slot, count in requests().items()]
        heard = meters.told(client, 60)
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()
    busy = [count / looks for count in busy.values()]
    share = sum(busy) / (row.children * row.threads)
    if not ABOUT_HALF[0] <= share <= ABOUT_HALF[1]:
        raise Failed(f"{share:.0%} of the workers were busy, not half of them")
    return {"looks": looks, "p99": heard["p99"], "busy": busy, "busy_share": share, "requests": served,
            "uneven_busy": uneven(busy), "uneven_requests": uneven(served)}


def uneven(counts):
    """How far the one that is farthest from even is from it."""
    even = sum(counts) / len(counts)
    return max(abs(count - even) for count in counts) / even


def burst(tools, cores):
    """Whether a child gives back the memory of 9,900 connections; each time it is a new child.

    No more fit into the 20,000 descriptors that a process often may have: a client may need two.
    """
    row = replace(PLAIN, idle=9_900)
    runs = [swell(tools, cores, row) for _ in range(TIMES)]
    return {"connections": row.idle, "runs": runs, "ratio": statistics.median(run["ratio"] for run in runs)}


def swell(tools, cores, row):
    """A child's memory before the row's idle connections came, while they were there, and after they went."""
    with Field(tools, cores) as field:
        server = field.add(row)
        child = lambda: next(pid for pid in meters.tree(server.pid) if pid != server.pid)
        time.sleep(REST)
        pss = [meters.pss(child())]
        holder = field.idle(server, row)
        pss.append(meters.pss(child()))
        holder.communicate(timeout=60)
        load(row, server, field.origin, 2, field.client_cores)
        time.sleep(REST)
        pss.append(meters.pss(child()))
    return {"pss_kib": pss, "ratio": pss[2] / pss[0]}


def measure(a):
    machine.find_servers()
    machine.install(["nginx", "wrk", "taskset", "chrt"])
    cores = machine.two_cores()
    tools = machine.build(["bench-origin", "bench-open-loop"], a.ostler)
    results = {"machine": machine.facts(tools), "rounds": a.rounds, "seconds": a.seconds, "curves": {}}
    for curve in CURVES:
        print(f"{curve.name}: {curve.what}", flush=True)
        told = {"what": curve.what, "reference": curve.reference, "points": []}
        told |= guarded(curve.name, lambda: {"points": draw(curve, tools, cores, a.rounds, a.seconds)})
        results["curves"][curve.name] = told
        keep(a.json, results)
    print("spread and burst", flush=True)
    results["spread"] = guarded("spread", lambda: spread(tools, cores, max(5, a.seconds)))
    results["burst"] = guarded("burst", lambda: burst(tools, cores))
    results["machine"]["load_after"] = machine.load()
    keep(a.json, results)
    return results


def guarded(name, act):
    """What `act` measures, or its fault: the others go on."""
    try:
        return act()
    except Exception as fault:
        print(f"  {name} FAILED: {fault}", flush=True)
        return {"fault": f"{name}: {fault if str(fault) else type(fault).__name__}"}


def keep(path, results):
    """Writes what there is, so that a run that is cut short leaves it."""
    if path:
        with open(path, "w") as f:
            json.dump(results, f, indent=1)


def faults(results):
    """What could not be measured."""
    every = list(results["curves"].values()) + [results["spread"], results["burst"]]
    return [told["fault"] for told in every if "fault" in told]


def budgets(results):
    """What is asked of a run that was measured: what it is, the figure, and what that may be at most."""
    for name, curve in results["curves"].items():
        for point in curve["points"]:
            what = f"{name}, {point['size']:,}"
            if "of_reference" in point:
                yield f"{what}: ostler / {curve['reference']}", point["of_reference"], OF_REFERENCE
            elif point is not curve["points"][0]:
                yield f"{what}: of its first", point["ratio"], OF_FIRST
    if "fault" not in results["spread"]:
        yield "spread: busy workers, from even", results["spread"]["uneven_busy"], FROM_EVEN
    if "fault" not in results["burst"]:
        yield "burst: a child's memory, of before", results["burst"]["ratio"], OF_BEFORE


def judged(results):
    """A sentence for each budget, and whether it is met."""
    return [(f"{what}: {figure:.3f}, {'met' if figure <= bound else 'MISSED'} (at most {bound:.2f})", figure <= bound)
            for what, figure, bound in budgets(results)]


def misses(results):
    """The sentences of the budgets that are missed."""
    return [sentence for sentence, met in judged(results) if not met]


def table(curve):
    """A line to a point, or to a point and a contestant."""
    lines = [["", "", "us/request", "of its first", "switches/request", "at rest", "KiB"]]
    if curve.get("reference"):
        lines[0].append(f"ostler / {curve['reference']}")
    for point in curve["points"]:
        for name, one in (("ostler", point), (curve.get("reference"), point.get("reference"))):
            if one:
                lines.append([f"{one['size']:,}" if one is point else "", name, f"{one['cpu']:.2f}", f"{one['ratio']:.3f}",
                              f"{one['switches']:.3f}" if "switches" in one else "-", f"{one['cpu_at_rest']:.4f}",
                              f"{one['pss_kib']:.0f}"] + ([f"{one['of_reference']:.3f}"] if "of_reference" in one else []))
    wide = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(room) if column == 1 else cell.rjust(room)
                      for column, (cell, room) in enumerate(zip(line, wide))) for line in lines]


def text(results):
    facts = results["machine"]
    lines = ["", f"{facts['cpu']}, {facts['cores']} cores; {facts['ostler']}; {results['rounds']} rounds of "
                 f"{results['seconds']} s; load average {facts['load_before']} before, {facts['load_after']} after"]
    for name, curve in results["curves"].items():
        lines += ["", f"{name}: {curve['what']}"]
        lines += table(curve) if curve["points"] else []
    told = results["spread"]
    lines += [""]
    if "fault" not in told:
        lines += [f"spread: 4 children of 25 workers, {told['offered_rps']} requests/s offered, {KIB} bytes after 10 ms; "
                  f"medians: {told['busy_share']:.0%} of the workers busy, at most {told['uneven_busy']:.0%} from even; "
                  f"requests at most {told['uneven_requests']:.0%}"]
        for run in told["runs"]:
            lines += [f"  busy {' '.join(f'{busy:.2f}' for busy in run['busy'])} ({run['busy_share']:.0%} of all, at most "
                      f"{run['uneven_busy']:.0%} from even); requests {' '.join(str(count) for count in run['requests'])} "
                      f"(at most {run['uneven_requests']:.0%})"]
    told = results["burst"]
    if "fault" not in told:
        lines += [f"burst: a child's memory before {told['connections']:,} connections, with them, after them (a client may need "
                  f"two of the 20,000 descriptors that a process often may have); median {told['ratio']:.3f} of before"]
        lines += [f"  {', '.join(f'{pss:,.0f}' for pss in run['pss_kib'])} KiB; {run['ratio']:.3f} of before"
                  for run in told["runs"]]
    lines += [f"budget: {sentence}" for sentence, _ in judged(results)]
    lines += [f"FAILED: {fault}" for fault in faults(results)]
    return "\n".join(lines)


def svg(results):
    """A panel to a curve: CPU per request as a ratio to the first point, over the size."""
    drawn = {name: curve for name, curve in results["curves"].items() if curve["points"]}
    ratios = [one["ratio"] for curve in drawn.values() for point in curve["points"]
              for one in (point, point.get("reference", point))]
    wide, high, parts, top = 210, 170, [], max(2, math.ceil(max(ratios, default=1)))
    for place, (name, curve) in enumerate(drawn.items()):
        left, points = 45 + place * (wide + 45), curve["points"]
        y = lambda ratio: 56 + high - ratio / top * high
        x = lambda index: left + index * wide / max(1, len(points) - 1)
        for level in range(top + 1):
            parts.append(f'<path d="M{left} {y(level):.1f}H{left + wide}" stroke="#ccc"/>'
                         f'<text x="{left - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{level}</text>')
        beside = [point["reference"] for point in points if "reference" in point]
        for line, other, colour in ((beside, points, REFERENCE_COLOUR), (points, beside, OUR_COLOUR)):
            path = " ".join(f"{x(index):.1f},{y(point['ratio']):.1f}" for index, point in enumerate(line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for index, point in enumerate(line):
                # Of two points the lower one has its figure below.
                lower = other and (point["ratio"], line is points) < (other[index]["ratio"], other is points)
                parts.append(f'<circle cx="{x(index):.1f}" cy="{y(point["ratio"]):.1f}" r="3" fill="{colour}"/>'
                             f'<text x="{x(index):.1f}" y="{y(point["ratio"]) + (16 if lower else -8):.1f}" '
                             f'text-anchor="middle" fill="{colour}">{point["ratio"]:.2f}</text>')
        for index, point in enumerate(points):
            parts.append(f'<text x="{x(index):.1f}" y="{56 + high + 16}" text-anchor="middle">{point["size"]:,}</text>')
            if "of_reference" in point:
                parts.append(f'<text x="{x(index):.1f}" y="{56 + high + 48}" text-anchor="middle">'
                             f'{point["of_reference"]:.2f}</text>')
        parts.append(f'<text x="{left}" y="{56 + high + 32}">{escape(curve["what"])}</text>')
        if beside:
            parts.append(f'<text x="{left}" y="{56 + high + 64}">ours / {escape(curve["reference"])} (above)</text>')
    total = 45 + len(drawn) * (wide + 45)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {high + 130}" width="{total}" '
            f'height="{high + 130}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="6" y="18" font-size="14">CPU per request beside ever more of what only waits, as a ratio to the '
            f'first point</text><text x="6" y="36"><tspan fill="{OUR_COLOUR}">ostler</tspan>, '
            f'<tspan fill="{REFERENCE_COLOUR}">nginx</tspan> (to its own first point); {results["rounds"]} rounds of '
            f'{results["seconds"]} s</text>' + "".join(parts) + "</svg>\n")
