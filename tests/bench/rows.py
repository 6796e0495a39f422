"""The table of what is measured: a row is one kind of load, and who bears it.

Names of contestants: `ostler`, `httpd` (each with its event driver, `-worker` and `-prefork` for the others), `nginx`,
`haproxy`, `relay` (the null relay: passes bytes on and parses nothing; of event, or of the driver in its name), and variants of a contestant with one
setting changed, as contestants.py knows them.
"""
from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024
PROXIES = ("nginx", "ostler", "haproxy", "httpd")
FLOOR = ("nginx", "ostler", "haproxy", "httpd", "relay")


@dataclass(frozen=True)
class Budget:
    """`who` against `whom` in `figure`: section of a run's summary, a ratio; at most `gate`, hoped for `goal`."""

    who: str
    whom: str
    gate: float
    goal: float
    figure: str = "cpu"


@dataclass(frozen=True)
class Absolute:
    """`who`'s `figure` itself, in its unit."""

    who: str
    figure: str
    gate: float
    goal: float


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    contestants: tuple = FLOOR
    # closed: wrk, as many requests as are answered; open: at a fixed rate; idle: connections that only wait,
    # and 64 clients beside them; start: nothing but starting and reloading.
    kind: str = "closed"
    clients: int = 64
    size: int = KIB
    delay: int = 0  # ms that the origin takes
    body: int = 0  # bytes that a request carries
    close: bool = False
    children: int = 1
    threads: int = 0  # workers of a child; 0: enough for all clients
    log: bool = False
    idle: int = 0
    both_cores: bool = False
    budgets: tuple = ()
    # Of `open`: this share of what the slowest can do.
    load: float = 0.5
    # Pairs of contestants whose ratio is told beside those to the reference.
    pairs: tuple = ()

    @property
    def target(self):
        return f"/{self.size}/{self.delay}" if self.delay else f"/{self.size}"

    @property
    def method(self):
        return "POST" if self.body else "GET"

    @property
    def lead(self):
        """Seconds from the start of the clients until they have all come and work evenly."""
        return self.delay * 1.5 / 1000 if self.delay >= 1000 else 0.3 if self.clients < 1000 else 0.6

    def seconds(self, seconds):
        """How long a round is, if the others are so long: where little happens in a second, more."""
        if self.kind == "open":
            return 1
        if self.delay >= 1000:
            return max(seconds, 5)
        return max(seconds, 3) if max(self.size, self.body) >= 10 * MIB else seconds

    def rounds(self, rounds):
        """How many rounds a row has, if the others have so many. A tail is as long as the machine is late within some
        seconds: many short rounds let its moods meet all contestants alike, where few long ones are one's luck.
        """
        return rounds * 5 if self.kind == "open" else rounds

    @property
    def reference(self):
        """Whose figures the others are divided by."""
        return self.contestants[0]


def ours(gate, goal):
    return (Budget("ostler", "nginx", gate, goal),)


# Buffers decide rows of large bodies: nginx by default, one that streams, one with much room; HAProxy by default, and one
# that lets the kernel move bodies.
UPLOADS = ("nginx", "ostler", "haproxy", "httpd", "relay", "nginx-streams", "haproxy-splice")
LARGE = UPLOADS + ("nginx-large",)

ROWS = (
    Row("1k-8", "1 KiB, 8 kept-alive clients", clients=8),
    Row("1k-64", "1 KiB, 64 kept-alive clients",
        budgets=ours(0.90, 0.82) + (Budget("ostler", "relay", 1.20, 1.10),)),
    Row("1k-1000", "1 KiB, 1000 kept-alive clients", clients=1000, budgets=ours(0.80, 0.73)),
    Row("16k", "16 KiB", LARGE, size=16 * KIB, budgets=ours(0.75, 0.70)),
    Row("100k", "100 KiB", LARGE, size=100 * KIB, budgets=ours(0.45, 0.36)),
    Row("1m", "1 MiB, 16 clients", LARGE, clients=16, size=MIB),
    Row("10m", "10 MiB, 8 clients", LARGE, clients=8, size=10 * MIB, budgets=ours(0.55, 0.45)),
    Row("close", "1 KiB, a connection per request", close=True, budgets=ours(0.95, 0.88)),
    Row("post-1k", "POST of 1 KiB", body=KIB),
    Row("post-100k", "POST of 100 KiB", UPLOADS, body=100 * KIB),
    Row("post-10m", "POST of 10 MiB, 8 clients", UPLOADS, clients=8, body=10 * MIB),
    Row("slow-10ms", "backend takes 10 ms, 1000 clients", clients=1000, delay=10),
    Row("slow-1s", "backend takes 1 s, 1000 clients", clients=1000, delay=1000),
    Row("idle-5000", "64 clients beside 5,000 idle connections", ("nginx", "ostler", "haproxy", "httpd"), kind="idle",
        idle=5000, budgets=(Absolute("ostler", "bytes_per_idle", 500, 400),)),
    # Two children: by default a process may often have no more than 20,000 descriptors, and a client may need two.
    # For the same reason HAProxy takes no more than 9,500; httpd needs more workers than it may have.
    Row("idle-15000", "64 clients beside 15,000 idle connections, 2 children", ("nginx", "ostler"), kind="idle",
        idle=15000, children=2, budgets=(Absolute("ostler", "bytes_per_idle", 500, 400),)),
    Row("log", "1 KiB, common log on", ("nginx", "ostler", "httpd"), log=True, budgets=ours(0.90, 0.82)),
    Row("status", "1 KiB, ExtendedStatus on (as everywhere here) and off", ("nginx", "ostler", "ostler-blind"),
        pairs=(("ostler", "ostler-blind"),)),
    Row("children-2", "1 KiB, 2 children on one core", PROXIES, children=2),
    Row("children-16", "1 KiB, 16 children on one core", PROXIES, children=16),
    Row("event", "event against httpd's", ("httpd", "ostler")),
    # What the process model costs by itself, its switches and its four calls, is the relay's.
    Row("worker", "worker against httpd's", ("httpd-worker", "ostler-worker", "relay-worker"),
        budgets=(Budget("ostler-worker", "httpd-worker", 0.55, 0.45),)),
    Row("prefork", "prefork against httpd's", ("httpd-prefork", "ostler-prefork", "relay-prefork"),
        budgets=(Budget("ostler-prefork", "httpd-prefork", 0.40, 0.33),)),
    Row("cores-2", "1 KiB, 2 children, nothing pinned", PROXIES, children=2, both_cores=True,
        budgets=ours(0.90, 0.80)),
    Row("open", "1 KiB, the same load for all, open loop: half of what the slowest can do",
        ("nginx", "ostler", "haproxy", "relay"),
        kind="open", budgets=(Budget("ostler", "nginx", 1.0, 0.8, "p99_tenths"),)),
    Row("start", "start with 2 children of 25 threads, first response, reload", ("ostler",), kind="start",
        children=2, budgets=(Absolute("ostler", "pss_kib", 6 * KIB, 4 * KIB), Absolute("ostler", "start_ms", 50, 20),
                             Absolute("ostler", "reload_ms", 100, 50))),
)
