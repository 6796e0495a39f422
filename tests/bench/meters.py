"""What a process tree has cost so far, read from /proc, and what wrk and the open-loop client tell."""
import json
import os
import subprocess

TICK = os.sysconf("SC_CLK_TCK")


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


def cpu(root):
    """Seconds of user and system time; the children that have ended are in their parent's account."""
    ticks = 0
    for pid in tree(root):
        try:
            ticks += sum(int(word) for word in fields(pid)[11:15])
        except OSError:
            continue
    return ticks / TICK


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
    """KiB of memory, what is shared divided by those who share it."""
    total = 0
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            continue
    return total


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


def open_loop(program, row, port, rate, seconds, cores):
    """Starts the open-loop client."""
    words = [program, f"127.0.0.1:{port}", row.target, str(row.size), str(row.clients), str(rate), str(seconds)]
    return subprocess.Popen(["taskset", "-c", cores] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
