"""Ostler beside nginx, HAProxy, httpd and a relay that parses nothing: what a request costs.

The proxy runs on one core, client and origin share another; contestants take turns round by round, so that a
machine that changes its mind meets all alike. CPU per request is user + system time of the proxy's whole process
tree by the requests answered, both counted while all clients are at work; a ratio is the median over the rounds of
each round's ratio to the row's first contestant (nginx, but for the rows against httpd). A row with a budget of which
its rounds leave open on which side of the gate it is plays as many again, and once more. p50 and p99 are wrk's, of its
whole life, with the clients' coming in; those of the row open are its client's, from when each request was due, and a
round in which that client was late itself is void: all play it again. An answer that is not right to the byte fails
its row, and so does who keeps no connections to the backend. Exit status: 1 if a contestant failed a row, 2 if a
budget is above its gate. Rows and contestants are listed by --list; their configurations are in tests/bench/configs.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import contestants
import curves
import instructions
import kernel
import machine
import meters
import report
from contestants import Failed, Server
from rows import ROWS


# How often a row plays as many rounds again, at most, to know on which side of its gates it is. More often, and one of the
# looks would sooner or later find it decided by chance.
AGAIN = 2


class Stage:
    """One row's origin and contestants, alive together; each loses its place by its first fault."""

    def __init__(self, row, names, tools, directory, cores):
        self.row, self.tools, self.directory = row, tools, directory
        both = ",".join(cores)
        self.proxy_cores, self.client_cores = (both, both) if row.both_cores else cores
        self.origin, self.servers, self.holders = None, {}, {}
        self.faults, self.rounds, self.once = {}, {name: [] for name in names}, {name: {} for name in names}

    def guarded(self, name, act, *words):
        """Does something with a contestant; a fault takes it out of the row."""
        try:
            return act(self.servers.get(name), *words)
        except Exception as fault:  # Whatever it is, the others go on.
            self.faults[name] = f"{name}: {fault if str(fault) else type(fault).__name__}"
            print(f"  {name} FAILED: {fault}", flush=True)
            return None

    def open(self):
        home = os.path.join(self.directory, "origin")
        os.makedirs(home, exist_ok=True)
        self.origin = Server("origin", [self.tools["bench-origin"]], self.client_cores, home, speaks=True)
        kinds = [contestants.family(name) for name in self.rounds]
        for name, kind in zip(self.rounds, kinds):
            def begin(_, name=name, kind=kind):
                # Who has a variant beside would share its memory with that.
                self.servers[name] = contestants.start(
                    name, self.row, self.directory, self.origin.port, self.tools, self.proxy_cores,
                    own=kind != "httpd" and kinds.count(kind) > 1)
            self.guarded(name, begin)

    def go_on(self, before):
        """Takes in the rounds of an earlier run of this row, if all that play now were in it to the end."""
        told = before.get("contestants", {})
        if all("fault" not in told.get(name, {"fault": "absent"}) for name in self.rounds):
            self.rounds = {name: list(told[name]["rounds"]) for name in self.rounds}

    def living(self):
        return [name for name in self.rounds if name not in self.faults]

    def close(self):
        contestants.stop_all(filter(None, [*self.servers.values(), self.origin]), self.holders.values())

    def wrk(self, server, seconds):
        """So much of wrk."""
        process = meters.wrk(self.row, server.port, seconds, self.client_cores)
        try:
            heard = meters.told(process, seconds + 60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        fault = meters.faults(self.row, heard, server.length)
        if fault:
            raise Failed(fault)
        return heard

    def warm_up(self, server, seconds):
        heard = self.wrk(server, seconds)
        self.once[server.name]["warm_rps"] = heard["requests"] / heard["seconds"]

    def hold(self, server):
        """Puts idle connections beside the others, and looks what they weigh."""
        row = self.row
        before = meters.pss(server.pid)
        self.holders[server.name] = curves.hold(server, row, self.client_cores)
        after = meters.pss(server.pid)
        self.once[server.name]["bytes_per_idle"] = (after - before) * 1024 / row.idle

    def rest(self, server, seconds):
        """What the tree uses while nothing happens, as a share of a core."""
        before = meters.cpu(server.pid)
        time.sleep(seconds)
        self.once[server.name]["cpu_at_rest"] = (meters.cpu(server.pid) - before) / seconds

    def release(self, server):
        holder = self.holders[server.name]
        out, _ = holder.communicate(timeout=60)
        if int(out.strip() or 0) != self.row.idle:
            raise Failed(f"only {out.strip()} of {self.row.idle} idle connections are still open")

    def load(self, server, seconds, rate):
        """The figures of so many seconds under the row's load."""
        row = self.row
        if row.kind == "open":
            process = meters.open_loop(
                self.tools["bench-open-loop"], row, server.port, rate, row.lead, seconds, self.client_cores)
        else:
            process = meters.wrk(row, server.port, round(row.lead + seconds) + meters.MORE, self.client_cores)
        return meters.loaded(row, server, self.origin, process, row.lead, seconds)

    def round(self, server, seconds, rate):
        server.check(self.row)
        figures = self.load(server, seconds, rate)
        server.check(self.row)
        return figures

    def round_of_all(self, number, seconds, rate):
        """The figures of all, by name."""
        # Each goes first in its turn.
        names = self.living()
        turn = number % len(names)
        seen = {}
        for name in names[turn:] + names[:turn]:
            figures = self.guarded(name, self.round, seconds, rate)
            if figures:
                print(f"  round {number + 1} {name:15} {figures['cpu']:9.2f} us {figures['rps']:9.0f} requests/s",
                      flush=True)
                seen[name] = figures
        return seen

    def play_rounds(self, rounds, seconds, rate):
        """So many rounds, and as many again at most in place of void ones; then void ones count, too."""
        played, kept = 0, 0
        while kept < rounds and self.living():
            seen = self.round_of_all(played, seconds, rate)
            played += 1
            if any(map(meters.is_void, seen.values())) and played - kept <= rounds:
                print("  void: the client was late itself", flush=True)
                continue
            kept += 1
            for name, figures in seen.items():
                self.rounds[name].append(figures)

    def play_until_decided(self, rounds, seconds, rate):
        """So many rounds, and as many again for as long as a budget is undecided, AGAIN times at most."""
        self.play_rounds(rounds, seconds, rate)
        for _ in range(AGAIN):
            result = summary(self)
            undecided = [report.budget_name(budget) for budget in self.row.budgets if report.is_undecided(budget, result)]
            if not undecided:
                break
            print(f"  undecided, played on: {', '.join(undecided)}", flush=True)
            self.play_rounds(rounds, seconds, rate)

    def play(self, rounds, seconds):
        row = self.row
        for name in self.living():
            self.guarded(name, self.warm_up, max(1, min(2, seconds)))
        if row.kind == "idle":
            for name in self.living():
                self.guarded(name, self.hold)
            time.sleep(curves.REST)
            for name in self.living():
                self.guarded(name, self.rest, curves.REST_LOOK)
        rate = 0
        if row.kind == "open" and self.living():
            rate = int(row.load * min(self.once[name]["warm_rps"] for name in self.living()))
            for name in self.living():
                self.once[name]["offered_rps"] = rate
        self.play_until_decided(rounds, seconds, rate)
        if row.kind == "idle":
            for name in self.living():
                self.guarded(name, self.release)

    def start_and_reload(self, rounds):
        """For a row of kind `start`: how long until the first answer, and until a reload is through."""
        home = os.path.join(self.directory, "origin")
        os.makedirs(home, exist_ok=True)
        self.origin = Server("origin", [self.tools["bench-origin"]], self.client_cores, home, speaks=True)
        for name in list(self.rounds):
            def once(_, name=name):
                begun = time.monotonic()
                server = contestants.start(
                    name, self.row, self.directory, self.origin.port, self.tools, self.proxy_cores)
                first = time.monotonic() - begun
                try:
                    # Its threads are all there once the daemon rests.
                    time.sleep(0.5)
                    pss = meters.pss(server.pid)
                    config = os.path.join(self.directory, name, "ostler.conf")
                    begun = time.monotonic()
                    done = subprocess.run([self.tools["ostler"], "-k", "graceful", "-f", config],
                                          capture_output=True, text=True, timeout=60)
                    reload = time.monotonic() - begun
                    if done.returncode != 0:
                        raise Failed(f"reload: {done.stdout}{done.stderr}")
                    server.check(self.row)
                finally:
                    contestants.stop_all([server])
                self.rounds[name].append({"start_ms": first * 1e3, "reload_ms": reload * 1e3, "pss_kib": pss})
            for _ in range(rounds):
                if name not in self.faults:
                    self.guarded(name, once)
        for figure in ("start_ms", "reload_ms", "pss_kib"):
            for name in self.living():
                self.once[name][figure] = statistics.median(r[figure] for r in self.rounds[name])


def summary(stage):
    """Medians, and ratios to the reference: of each round, then their median and range."""
    row, result = stage.row, {"what": stage.row.what, "reference": stage.row.reference, "contestants": {}}
    base = stage.rounds.get(row.reference, [])
    for name in stage.rounds:
        if name in stage.faults:
            result["contestants"][name] = {"fault": stage.faults[name]}
            continue
        rounds = stage.rounds[name]
        told = {"once": stage.once[name], "rounds": rounds, "median": {}, "ratio": {}}
        for figure in rounds[0] if rounds and row.kind != "start" else []:
            values = [r[figure] for r in rounds]
            told["median"][figure] = statistics.median(values)
            ratios = [one[figure] / two[figure] for one, two in zip(rounds, base) if two[figure]]
            if ratios and row.reference not in stage.faults and figure not in ("requests", "dials", "most_late", "spoiled_share"):
                told["ratio"][figure] = [statistics.median(ratios), min(ratios), max(ratios)]
        result["contestants"][name] = told
    return result


def read_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the rows, and leave")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows only")
    parser.add_argument("--against", metavar="NAME,...", help="these contestants only, beside ostler; nginx must be "
                        "among them for ratios to nginx")
    parser.add_argument("--rounds", type=int, help="rounds of each row (5), or of each curve (7)")
    parser.add_argument("--seconds", type=int, help="length of a round (4), or of a curve's (1)")
    parser.add_argument("--json", metavar="FILE", help="write all figures of all rounds")
    parser.add_argument("--svg", metavar="FILE", help="write a picture of the ratios")
    parser.add_argument("--readme", metavar="FILE", help="put the table of the ratios into this file, between its marks")
    parser.add_argument("--from", metavar="FILE", dest="source", help="measure nothing: show what --json once wrote")
    parser.add_argument("--more", metavar="FILE", help="go on with all rows of what --json wrote of the same programs: its rounds count too")
    parser.add_argument("--ostler", metavar="PATH", default=os.environ.get("OSTLER"),
                        help="a release build (by default it is built)")
    parser.add_argument("--instructions", action="store_true",
                        help="count instructions of the hot path instead, and compare with the committed baseline")
    parser.add_argument("--accept", action="store_true", help="with --instructions: make these the baseline")
    parser.add_argument("--curves", action="store_true",
                        help="CPU per request beside ever more connections, children, hosts, rules instead; how evenly "
                        "children share; whether memory is given back")
    parser.add_argument("--kernel", action="store_true",
                        help="bytes that the kernel keeps for a socket, a thread, a process instead")
    parser.add_argument("--times", action="store_true", help="nanoseconds of the hot path's parts instead")
    a = parser.parse_args()
    known = [row.name for row in ROWS]
    wrong = [name for name in a.only or [] if name not in known]
    if wrong:
        parser.error(f"no row is called {wrong[0]}; --list shows them")
    if a.more and a.only:
        parser.error("--more goes on with all rows, not with those of --only: to add rounds just where a result is not liked "
                     "would be to choose the result")
    everybody = {name for row in ROWS for name in row.contestants}
    wrong = [name for name in (a.against or "").split(",") if name and name not in everybody]
    if wrong:
        parser.error(f"no contestant is called {wrong[0]}; there are {', '.join(sorted(everybody))}")
    if a.rounds is None:
        a.rounds = 7 if a.curves else 5
    if a.seconds is None:
        a.seconds = 1 if a.curves else 4
    if a.rounds < 1 or a.seconds < 1 or a.rounds > 100 or a.seconds > 600:
        parser.error("--rounds is 1 to 100, --seconds 1 to 600")
    return a


def fewest_rounds(rows):
    """How many rounds every row has at least; of who failed none is asked for."""
    return min((len(told["rounds"]) for row in rows for told in row["contestants"].values() if "rounds" in told), default=0)


def chosen(row, against):
    if not against:
        return row.contestants
    wanted = against.split(",")
    return tuple(name for name in row.contestants if name in wanted or contestants.family(name) == "ostler")


def earlier(path, results):
    """The rows of an earlier run, whose rounds are added to those to come; it must be of the same programs."""
    with open(path) as f:
        found = json.load(f)
    for name in ("cpu", "cores", "kernel", "rustc", "ostler", "nginx", "haproxy", "httpd", "wrk"):
        if found["machine"][name] != results["machine"][name]:
            raise SystemExit(f"{path} is of another {name}: {found['machine'][name]}, not {results['machine'][name]}")
    if found["seconds"] != results["seconds"]:
        raise SystemExit(f"rounds in {path} have {found['seconds']} s, not {results['seconds']}")
    results["machine"]["load_before"] = found["machine"]["load_before"]
    return found["rows"]


def measure(a):
    machine.find_servers()
    machine.install(["nginx", "haproxy", "apache2", "wrk", "taskset", "chrt"])
    cores = machine.two_cores()
    tools = machine.build(["bench-origin", "bench-relay", "bench-blocking-relay", "bench-open-loop"], a.ostler)
    results = {"machine": machine.facts(tools), "rounds": a.rounds, "seconds": a.seconds, "rows": {}}
    before = earlier(a.more, results) if a.more else {}
    # What has not been played yet stays as it was.
    results["rows"] |= before
    rows = [row for row in ROWS if not a.only or row.name in a.only]
    for row in rows:
        names = chosen(row, a.against)
        print(f"{row.name}: {row.what} ({', '.join(names)})", flush=True)
        with tempfile.TemporaryDirectory(prefix="ostler-bench-") as directory:
            # Workers leave root for a user that must reach their files.
            os.chmod(directory, 0o755)
            stage = Stage(row, names, tools, directory, cores)
            stage.go_on(before.get(row.name, {}))
            try:
                if row.kind == "start":
                    stage.start_and_reload(a.rounds)
                else:
                    stage.open()
                    stage.play(row.rounds(a.rounds), row.seconds(a.seconds))
            except Failed as fault:
                # The origin's: nobody can play this row.
                stage.faults = {name: f"{name}: {fault}" for name in names}
            finally:
                stage.close()
        results["rows"][row.name] = summary(stage)
        results["rounds"] = fewest_rounds(results["rows"].values())
        results["machine"]["load_after"] = machine.load()
        if a.json:
            # After each row, so that a run that is cut short leaves what it has.
            with open(a.json, "w") as f:
                json.dump(results, f, indent=1)
    return results


def exit_code(results):
    """1 if a contestant failed a row, 2 if a budget is above its gate."""
    if any("fault" in told for row in results["rows"].values() for told in row["contestants"].values()):
        return 1
    return 2 if any(report.misses(row, results["rows"][row.name]) for row in ROWS if row.name in results["rows"]) else 0


def main():
    a = read_arguments()
    # Whatever ends us, the servers end first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if a.list:
        print(report.listing(ROWS))
        return 0
    if a.instructions or a.times:
        machine.find_servers()
        return instructions.times() if a.times else instructions.check(a.accept)
    if a.kernel:
        return kernel.main(a.ostler)
    return play_curves(a) if a.curves else play_rows(a)


def measured(a, measure):
    """What `measure` measures now, or what --from has of an earlier run."""
    if not a.source:
        return measure(a)
    with open(a.source) as f:
        return json.load(f)


def play_curves(a):
    drawn = measured(a, curves.measure)
    print(curves.text(drawn))
    if a.svg:
        with open(a.svg, "w") as f:
            f.write(curves.svg(drawn))
    return 1 if curves.faults(drawn) else 2 if curves.misses(drawn) else 0


def play_rows(a):
    results = measured(a, measure)
    print(report.text(results, ROWS))
    if a.svg:
        with open(a.svg, "w") as f:
            f.write(report.svg(results, ROWS))
    if a.readme:
        with open(a.readme) as f:
            before = f.read()
        with open(a.readme, "w") as f:
            f.write(report.put_table(before, results, ROWS))
    return exit_code(results)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
