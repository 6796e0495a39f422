"""How many instructions the hot path's parts take, counted by callgrind and held to a committed baseline.

A part is done a few times and then many times more; the difference is the part alone, whatever start and end of the
program cost. That needs no more of callgrind than the total it prints, hence no crate and no runner whose version
must fit. Counts depend on what compiled and what is linked in, so a baseline is keyed to compiler, libc and the
vector instructions that the processor has; without one for the key at hand nothing is compared, and that is said.
What is counted is not the release: counting.toml builds the same code in seconds rather than minutes, and without the
inlining over crates that moves counts by percents when something else changes. Nanoseconds (--times) are the release's.
"""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

import machine

BASELINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "instructions.json")
# A regression is more than this share above the baseline.
ROOM = 0.03
FEW, MANY = 200, 1200
# What ExtendedStatus On may cost: an exchange with it against one without.
EXTENDED = ("exchange", "exchange-plain", 1.03)


def key():
    """What a count depends on besides our own text."""
    rustc = machine.output(["rustc", "--version"])
    libc = os.confstr("CS_GNU_LIBC_VERSION") or "another libc"
    vectors = "no avx2"
    with open("/proc/cpuinfo") as f:
        if re.search(r"^flags.*\bavx2\b", f.read(), re.MULTILINE):
            vectors = "avx2"
    return f"{rustc}; {libc}; {os.uname().machine}, {vectors}; {os.path.basename(machine.COUNTING)}"


def count(program, part, times):
    directory, name = os.path.split(program)
    words = [shutil.which("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null", f"./{name}", part, str(times)]
    # No environment and a short name, so that the stack begins alike each time.
    done = subprocess.run(words, cwd=directory, env={}, capture_output=True, text=True, timeout=300)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise SystemExit(f"callgrind failed on {part}: {done.stderr[-500:]}")
    return int(found[1])


def count_all(program, names):
    """Instructions of each part, done once. Counts don't mind company, so each core has a part."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as cores:
        few = [cores.submit(count, program, name, FEW) for name in names]
        many = [cores.submit(count, program, name, MANY) for name in names]
        return {name: round((more.result() - less.result()) / (MANY - FEW), 1)
                for name, less, more in zip(names, few, many)}


def parts(program):
    done = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return dict(line.split("\t") for line in done.stdout.splitlines())


def times():
    program = machine.build(["hot-path"], ostler="-")["hot-path"]
    return subprocess.run([program, "--times"]).returncode


def check(accept):
    """Counts and compares; with `accept` the counts become the baseline. An exit code."""
    baseline = {}
    if os.path.exists(BASELINE):
        with open(BASELINE) as f:
            baseline = json.load(f)
    here = key()
    known = baseline.get(here)
    if known is None and not accept:
        print(f"instruction counts: skipped, there is no baseline for {here}; the command with --accept makes one")
        return 0
    machine.install(["valgrind"])
    program = machine.build_to_count("hot-path")
    named = parts(program)
    counts, worse = count_all(program, list(named)), []
    print(here)
    for part, what in named.items():
        line = f"{part:14} {counts[part]:9.1f}"
        if known and part in known:
            change = counts[part] / known[part] - 1
            line += f"  {change:+7.2%}"
            if change > ROOM:
                worse.append(f"{part} takes {counts[part]:.0f} instructions, {change:.1%} more than the baseline")
        elif known:
            worse.append(f"{part} has no baseline")
        print(f"{line}  {what}")
    on, off, most = EXTENDED
    cost = counts[on] / counts[off]
    print(f"ExtendedStatus On against Off: {counts[on]:.0f} / {counts[off]:.0f} = {cost:.4f}, at most {most}")
    if cost > most:
        worse.append(f"ExtendedStatus On costs {cost:.4f} of Off, more than {most}")
    if accept:
        baseline[here] = counts
        with open(BASELINE, "w") as f:
            json.dump(baseline, f, indent=1, sort_keys=True)
            f.write("\n")
        print(f"now the baseline of {here}")
        return 1 if cost > most else 0
    for line in worse:
        print(f"instruction counts: {line}; if it is worth it, --accept makes it the baseline", file=sys.stderr)
    return 1 if worse else 0
