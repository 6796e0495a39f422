"""What a process tree has cost so far, as the kernel tells it, and what wrk and the open-loop client tell."""
import functools
import json
import os
import signal
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
# Connections to the backend for a request, at most, of who keeps them.
DIALS = 0.05
# Seconds that wrk may run longer than it is wanted: it is interrupted before.
MORE = 60
# This share of a round's requests may have met an open-loop client that was late itself.
MOST_SPOILED = 0.01


def fields(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()


def tree(root):
    """root and all its living descendants."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(fields(name)[1])
            except (OSError, IndexError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def clock(pid):
    """Seconds of user and system time of a living process: its clock (clock_getcpuclockid(3)), which is exact to the
    nanosecond, where /proc/PID/stat counts ticks.
    """
    return time.clock_gettime((~pid << 3) | 2)


def cpu(root, pids=None):
    """Seconds of user and system time of a tree (or of `pids`); the children that have ended are in their parent's
    account.
    """
    seconds = 0.0
    for pid in pids or tree(root):
        try:
            seconds += clock(pid) + sum(int(word) for word in fields(pid)[13:15]) / TICK
        except OSError:
            continue
    return seconds


def switches(root):
    """Context switches of all living threads, wanted and unwanted."""
    total = 0
    for pid in tree(root):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as f:
                    total += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        except OSError:
            continue
    return total


def pss(root):
    """KiB of memory, what is shared divided by those who share it; of who has gone meanwhile, none."""
    total = 0
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError as fault:
            raise PermissionError(f"the memory of process {pid} can't be seen: the right CAP_SYS_PTRACE is missing") from fault
    return total


def window(root, origin, lead, seconds):
    """What a tree costs in so many seconds that begin after `lead`, in the middle of a load: CPU seconds, context
    switches, requests that the origin answered meanwhile and connections that it took, and how long it really was.

    So neither the coming of the clients nor the requests that they leave unfinished at the end are in it.
    """
    time.sleep(lead)
    # The same order at both ends, so that what the looking takes is in neither difference.
    begun, cpu_before, switches_before = time.monotonic(), cpu(root), switches(root)
    answered, taken = origin.counts()
    time.sleep(seconds)
    ended, cpu_after, switches_after = time.monotonic(), cpu(root), switches(root)
    answered_after, taken_after = origin.counts()
    return {"cpu": cpu_after - cpu_before, "switches": switches_after - switches_before,
            "answered": answered_after - answered, "taken": taken_after - taken, "seconds": ended - begun}


def loaded(row, server, origin, process, lead, seconds):
    """The figures of a round whose client runs as `process`: wrk, which is ended with it, or one that ends by itself."""
    try:
        seen = window(server.pid, origin, lead, seconds)
        if row.kind != "open":
            # Until then it would go on; it tells what it has.
            process.send_signal(signal.SIGINT)
        heard = told(process, 60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    fault = faults(row, heard, server.length) if row.kind != "open" else None
    if not fault and seen["answered"] <= 0:
        fault = "no request came through"
    # Without a pool of connections a row would compare something else.
    if not fault and server.keeps_backends and seen["taken"] > seen["answered"] * DIALS:
        fault = f"{seen['taken']} connections to the backend for {seen['answered']} requests: none are kept"
    if fault:
        raise ValueError(fault)
    count = seen["answered"]
    return {"cpu": seen["cpu"] / count * 1e6, "rps": count / seen["seconds"], "p50": heard["p50"], "p99": heard["p99"],
            "switches": seen["switches"] / count, "requests": count, "pss_kib": pss(server.pid),
            "dials": seen["taken"] / count} | {name: heard[name] for name in ("p99_tenths", "most_late", "spoiled_share") if name in heard}


def is_void(figures):
    """Whether a round tells more of its open-loop client than of the contestant."""
    return figures.get("spoiled_share", 0) > MOST_SPOILED


def told(process, patience):
    """The JSON in the last line that a client prints."""
    try:
        out, err = process.communicate(timeout=patience)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        raise ValueError(f"the client failed: {(out + err)[-500:]}")
    return json.loads(out.strip().splitlines()[-1])


def wrk(row, port, seconds, cores, clients=None):
    """Starts wrk on a row's load."""
    words = ["wrk", "-t1", f"-c{clients or row.clients}", f"-d{seconds}s", "--timeout", "30s", "-s",
             os.path.join(os.path.dirname(os.path.abspath(__file__)), "wrk.lua"),
             f"http://127.0.0.1:{port}{row.target}", "--", row.method, str(row.body), "close" if row.close else "keep"]
    return subprocess.Popen(["taskset", "-c", cores] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def faults(row, heard, length):
    """What is wrong with the answers that wrk got: it looks at the status, and counts the bytes.

    A right answer has `length` bytes, head and all; those under way at the end count in bytes only.
    """
    errors = {kind: count for kind, count in heard["errors"].items() if count}
    if errors:
        return f"errors: {errors}"
    least, most = heard["requests"] * length, (heard["requests"] + row.clients) * length
    if not heard["requests"] or not least <= heard["bytes"] <= most:
        return f"{heard['requests']} answers of {length} bytes in {heard['bytes']} bytes"
    return None


@functools.cache
def before_all_others():
    """Words that start a program which no other on its core can keep from running, where that is permitted."""
    words = ["chrt", "--fifo", "1"]
    return words if subprocess.run(words + ["true"], capture_output=True).returncode == 0 else []


def open_loop(program, row, port, rate, lead, seconds, cores):
    """Starts the open-loop client; what it sends in the first `lead` seconds does not count.

    The origin, which has the same core, would make it late.
    """
    words = [program, f"127.0.0.1:{port}", row.target, str(row.size), str(row.clients), str(rate), str(round(lead * 1000)),
             str(seconds)]
    return subprocess.Popen(["taskset", "-c", cores] + before_all_others() + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
