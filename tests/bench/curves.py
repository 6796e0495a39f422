"""Does the cost of a request grow with what only waits beside it? And: is the work spread, is memory given back?

A curve is one load (64 clients, 1 KiB) at several sizes of something that has nothing to do with it: idle connections,
children, virtual hosts, ProxyPass rules. The daemons of all its points are alive together and take turns round by round,
so that a machine that changes its mind meets all alike; a point's ratio is the median of its rounds' ratios to the
curve's first point.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

import contestants
import machine
import meters
from contestants import Failed, Server
from rows import KIB, Row

HERE = os.path.dirname(os.path.abspath(__file__))
# Threads give their buffers back when they have been parked for 10 s.
REST = 13


@dataclass(frozen=True)
class Curve:
    name: str
    what: str
    sizes: tuple
    row: object  # size -> Row
    extra: object = lambda size: ""  # size -> lines of configuration


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
          lambda size: replace(PLAIN, idle=size, children=2)),
    Curve("children", "children, on one core", (1, 8, 32, 128), lambda size: replace(PLAIN, children=size)),
    Curve("hosts", "virtual hosts by name", (1, 100, 1000, 10000), lambda size: PLAIN, hosts),
    Curve("rules", "ProxyPass rules before the one that matches", (1, 100, 1000), lambda size: PLAIN, rules),
)


def start(row, home, origin, tools, cores, extra=""):
    """An ostler with its files in `home`."""
    os.makedirs(home)
    os.chmod(home, 0o755)
    return contestants.start("ostler", row, home, origin.port, tools, cores, extra)


def hold(server, row, cores):
    """Connections that only wait; they go when the process ends."""
    holder = subprocess.Popen(
        ["taskset", "-c", cores, sys.executable, os.path.join(HERE, "idle.py"), str(server.port), str(row.idle),
         row.target, str(row.size)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if holder.stdout.readline().strip() != "ready":
        raise Failed(f"{row.idle} idle connections: {holder.stderr.read()[-300:]}")
    return holder


def load(row, server, seconds, cores):
    """CPU seconds and requests of a round of wrk."""
    before = meters.cpu(server.pid)
    heard = meters.told(meters.wrk(row, server.port, seconds, cores), seconds + 60)
    fault = meters.faults(row, heard, server.length)
    if fault:
        raise Failed(fault)
    return meters.cpu(server.pid) - before, heard["requests"]


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

    def add(self, row, extra=""):
        home = os.path.join(self.directory.name, str(len(self.servers)))
        server = start(row, home, self.origin, self.tools, self.proxy_cores, extra)
        server.board = os.path.join(home, "ostler", "scoreboard")
        self.servers.append(server)
        load(row, server, 1, self.client_cores)
        return server

    def idle(self, server, row):
        self.holders.append(hold(server, row, self.client_cores))

    def __exit__(self, *_):
        for holder in self.holders:
            if holder.poll() is None:
                holder.kill()
                holder.wait()
        for server in self.servers + [self.origin]:
            server.stop()
        self.directory.cleanup()


def draw(curve, tools, cores, rounds, seconds):
    """The points of a curve: size, CPU per request, ratio, CPU at rest, memory."""
    with Field(tools, cores) as field:
        rows = [curve.row(size) for size in curve.sizes]
        for size, row in zip(curve.sizes, rows):
            server = field.add(row, curve.extra(size).replace("@origin@", str(field.origin.port)))
            if row.idle:
                field.idle(server, row)
        costs = [[] for _ in rows]
        for number in range(rounds):
            order = list(range(len(rows)))
            turn = number % len(rows)
            for place in order[turn:] + order[:turn]:
                spent, count = load(rows[place], field.servers[place], seconds, field.client_cores)
                costs[place].append(spent / count * 1e6)
        points = []
        for size, server, cost in zip(curve.sizes, field.servers, costs):
            before = meters.cpu(server.pid)
            time.sleep(3)
            points.append({
                "size": size, "cpu": statistics.median(cost), "rounds": cost,
                "ratio": statistics.median(one / two for one, two in zip(cost, costs[0])),
                "cpu_at_rest": (meters.cpu(server.pid) - before) / 3, "pss_kib": meters.pss(server.pid)})
        return points


def children_of(server, tools):
    """The children that serve, as the scoreboard tells."""
    done = subprocess.run([tools["ostler"], "status", "--scoreboard", server.board, "--json"],
                          capture_output=True, text=True, timeout=30)
    told = json.loads(done.stdout)
    return [child for child in told["children"] if child["stage"] == "ready"]


def spread(tools, cores, seconds):
    """How evenly four children share an open-loop load of half of what they can do: busy workers and requests, by child."""
    row = replace(PLAIN, children=4, kind="open", delay=10)
    with Field(tools, cores) as field:
        server = field.add(row)
        _, count = load(row, server, 3, field.client_cores)
        rate = count // 6
        requests = lambda: {child["slot"]: child["latency"]["count"] for child in children_of(server, tools)}
        before = requests()
        client = meters.open_loop(tools["bench-open-loop"], row, server.port, rate, seconds, field.client_cores)
        busy, looks = {}, 0
        while client.poll() is None:
            for child in children_of(server, tools):
                busy[child["slot"]] = busy.get(child["slot"], 0) + child["busy"]
            looks += 1
            time.sleep(0.05)
        heard = meters.told(client, 60)
        served = {slot: count - before.get(slot, 0) for slot, count in requests().items()}
    def uneven(shares):
        even = sum(shares) / len(shares)
        return max(abs(share - even) for share in shares) / even
    return {"offered_rps": rate, "looks": looks, "p99": heard["p99"],
            "busy": [busy[slot] / looks for slot in sorted(busy)], "requests": [served[slot] for slot in sorted(served)],
            "uneven_busy": uneven(list(busy.values())), "uneven_requests": uneven(list(served.values()))}


def burst(tools, cores):
    """A child's memory before 10,000 connections came, while they were there, and after they went."""
    row = replace(PLAIN, idle=9_900)
    with Field(tools, cores) as field:
        server = field.add(row)
        child = lambda: next(pid for pid in meters.tree(server.pid) if pid != server.pid)
        time.sleep(REST)
        pss = [meters.pss(child())]
        holder = hold(server, row, field.client_cores)
        pss.append(meters.pss(child()))
        holder.communicate(timeout=60)
        load(row, server, 2, field.client_cores)
        time.sleep(REST)
        pss.append(meters.pss(child()))
    return {"connections": row.idle, "pss_kib": pss, "ratio": pss[2] / pss[0]}


def measure(a):
    machine.find_servers()
    machine.install(["nginx", "haproxy", "apache2", "wrk", "taskset"])
    cores = machine.two_cores()
    tools = machine.build(["bench-origin", "bench-open-loop"], a.ostler)
    results = {"machine": machine.facts(tools), "rounds": a.rounds, "seconds": a.seconds, "curves": {}}
    for curve in CURVES:
        print(f"{curve.name}: {curve.what}", flush=True)
        results["curves"][curve.name] = {"what": curve.what, "points": draw(curve, tools, cores, a.rounds, a.seconds)}
    print("spread and burst", flush=True)
    results["spread"] = spread(tools, cores, max(5, a.seconds))
    results["burst"] = burst(tools, cores)
    results["machine"]["load_after"] = machine.load()
    return results


def text(results):
    facts = results["machine"]
    lines = ["", f"{facts['cpu']}, {facts['cores']} cores; {facts['ostler']}; {results['rounds']} rounds of "
                 f"{results['seconds']} s; load average {facts['load_before']} before, {facts['load_after']} after"]
    for name, curve in results["curves"].items():
        lines += ["", f"{name}: {curve['what']}"]
        for point in curve["points"]:
            lines.append(f"{point['size']:>8}  {point['cpu']:7.2f} us/request  {point['ratio']:.3f} of the first  "
                         f"{point['cpu_at_rest']:.4f} of a core at rest  {point['pss_kib']:8.0f} KiB")
    told = results["spread"]
    lines += ["", f"spread: 4 children, {told['offered_rps']} requests/s offered, {KIB} bytes after 10 ms: busy workers "
              + " ".join(f"{busy:.2f}" for busy in told["busy"]) + f", at most {told['uneven_busy']:.0%} from even; requests "
              + " ".join(str(count) for count in told["requests"]) + f", at most {told['uneven_requests']:.0%}"]
    told = results["burst"]
    lines += [f"burst: a child's memory before {told['connections']} connections, with them, after them: "
              + ", ".join(f"{pss:.0f}" for pss in told["pss_kib"]) + f" KiB; {told['ratio']:.3f} of before"]
    return "\n".join(lines)


def svg(results):
    """A panel to a curve: CPU per request as a ratio to the first point, over the size."""
    wide, high, parts = 210, 150, []
    for place, (name, curve) in enumerate(results["curves"].items()):
        left, points = 45 + place * (wide + 45), curve["points"]
        y = lambda ratio: 40 + high - min(ratio, 2.0) / 2.0 * high
        x = lambda index: left + index * wide / max(1, len(points) - 1)
        for ratio in (0, 1, 2):
            parts.append(f'<path d="M{left} {y(ratio)}H{left + wide}" stroke="#ccc"/>'
                         f'<text x="{left - 6}" y="{y(ratio) + 4}" text-anchor="end">{ratio}</text>')
        line = " ".join(f"{x(index):.1f},{y(point['ratio']):.1f}" for index, point in enumerate(points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#2166ac" stroke-width="2"/>')
        for index, point in enumerate(points):
            parts.append(f'<circle cx="{x(index):.1f}" cy="{y(point["ratio"]):.1f}" r="3" fill="#2166ac"/>'
                         f'<text x="{x(index):.1f}" y="{40 + high + 16}" text-anchor="middle">{point["size"]:,}</text>'
                         f'<text x="{x(index):.1f}" y="{y(point["ratio"]) - 8:.1f}" text-anchor="middle">'
                         f'{point["ratio"]:.2f}</text>')
        parts.append(f'<text x="{left}" y="{40 + high + 34}">{curve["what"]}</text>')
    total = 45 + len(results["curves"]) * (wide + 45)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {high + 90}" width="{total}" '
            f'height="{high + 90}" font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="6" y="18" font-size="14">CPU per request beside ever more of what only waits, as a ratio to the '
            f'first point</text>' + "".join(parts) + "</svg>\n")
