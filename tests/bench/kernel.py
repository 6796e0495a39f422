"""What the kernel keeps for sockets, threads and processes: the figures of `Kernel` in src/size/costs.rs.

They are differences of /proc/meminfo, so the machine must do nothing else. Nothing is compared: what is printed is for
whoever changes those figures.
"""
import os
import resource
import select
import socket
import subprocess
import tempfile
import time

import contestants
import machine
import meters

SLAB = ("SReclaimable", "SUnreclaim")
FEW, MANY = 500, 6000


def kept(*names):
    """Bytes, by these fields of /proc/meminfo together."""
    with open("/proc/meminfo") as f:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return sum(fields[name] for name in names) * 1024


def sockets():
    """Bytes of an end of a TCP connection, one in two of them watched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    poll, ends = select.epoll(), []

    def more(count):
        for _ in range(count):
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
            far.setblocking(False)
            poll.register(far, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            ends.extend((near, far))

    more(FEW)
    before = kept(*SLAB)
    more(MANY)
    found = (kept(*SLAB) - before) / (2 * MANY)
    for end in ends:
        end.close()
    return found


def with_children(ostler, count, threads):
    """Slab, stacks and page tables with so many children, all of them ready."""
    kind, total = ("prefork" if threads == 1 else "event"), count * threads
    if threads == 1:
        limits = f"ServerLimit {count}\nMaxRequestWorkers {count}\nMinSpareServers {count}\n"
    else:
        limits = (f"ServerLimit {count}\nThreadLimit {threads}\nThreadsPerChild {threads}\nMaxRequestWorkers {total}\n"
                  f"MinSpareThreads {total}\n")
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as home:
        os.chmod(home, 0o755)
        config = os.path.join(home, "ostler.conf")
        with open(config, "w") as f:
            f.write(f"MPM {kind}\nServerRoot {home}\nPidFile pid\nScoreBoardFile board\nErrorLog error.log\n"
                    f"{contestants.user_line('User {user}' + chr(10) + 'Group {group}')}\nListen 127.0.0.1:0\n"
                    f"StartServers {count}\n{limits}ProxyPass / http://127.0.0.1:9/\n")
        server = contestants.Server("ostler", [ostler, "-DFOREGROUND", "-f", config], "0", home)
        try:
            end = time.monotonic() + 60
            while len(meters.tree(server.pid)) <= count:
                if time.monotonic() > end:
                    raise SystemExit(f"only {len(meters.tree(server.pid)) - 1} of {count} children: {server.said()}")
                time.sleep(0.1)
            # Their threads follow.
            time.sleep(2)
            return kept(*SLAB), kept("KernelStack"), kept("PageTables")
        finally:
            server.stop()


def main(ostler):
    machine.find_servers()
    tools = machine.build([], ostler)
    for threads, more in ((1, 200), (25, 40), (50, 40)):
        few, many = (with_children(tools["ostler"], count, threads) for count in (4, 4 + more))
        slab, stacks, tables = ((two - one) / more for one, two in zip(few, many))
        print(f"a child of {threads} threads: slab {slab:.0f}, stacks {stacks:.0f}, page tables {tables:.0f} bytes", flush=True)
    print(f"a socket: slab {sockets():.0f} bytes")
    return 0
