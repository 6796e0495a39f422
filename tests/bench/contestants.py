"""The programs that are compared: their configurations, and how they are started, watched and ended."""
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from functools import partial

HERE = os.path.dirname(os.path.abspath(__file__))
HTTPD_MODULES = "/usr/lib/apache2/modules"

# nginx's large bodies: unbuffered, and with room for 1 MiB (of what a client sends its rows are unbuffered anyway).
BUFFERS = {
    "nginx-streams": "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 64k; "
                     "client_body_buffer_size 64k;",
    "nginx-large": "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 512k;",
}


class Failed(Exception):
    """A contestant did not do what a row asks of it. Its row fails, the run goes on."""


def family(name):
    return name.split("-")[0]


def driver(name):
    kind = name.partition("-")[2]
    return kind if kind in ("worker", "prefork") else "event"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spread(mpm, row):
    """Processes, and threads of each, by which all clients can be served at once."""
    if mpm == "prefork":
        return row.clients + 8, 1
    if row.threads:
        return row.children, row.threads
    # Each child has workers for all clients, since they need not come evenly, and some to spare: httpd's event closes idle
    # connections once all of its workers are busy.
    return row.children, 25 if row.kind == "start" else max(25, row.clients) + 16


def workers(mpm, row):
    """The directives of the process model, the same for httpd and ostler."""
    children, threads = spread(mpm, row)
    if mpm == "prefork":
        return (f"ServerLimit {children}\nMaxRequestWorkers {children}\nStartServers {children}\n"
                f"MinSpareServers 1\nMaxSpareServers {children}")
    total = threads * children
    return (f"ServerLimit {children}\nThreadLimit {threads}\nThreadsPerChild {threads}\n"
            f"MaxRequestWorkers {total}\nStartServers {children}\nMinSpareThreads 1\nMaxSpareThreads {total}")


def user_line(form):
    """Whom children are to be, for a program that root starts."""
    if os.geteuid() != 0:
        return ""
    nobody = pwd.getpwnam("nobody")
    import grp
    return form.format(user="nobody", group=grp.getgrgid(nobody.pw_gid).gr_name)


def fill(template, words):
    with open(os.path.join(HERE, "configs", template)) as f:
        text = f.read()
    return re.sub(r"@(\w+)@", lambda found: str(words[found[1]]), text)


def recipe(name, row, directory, port, origin, tools, extra=""):
    """The configuration's text and file, and the command that serves it. `extra`: lines for ostler, before its ProxyPass."""
    words = {"dir": directory, "port": port, "origin": origin, "children": row.children, "log": "", "status": "",
             "extra": extra, "mpm": driver(name), "modules": HTTPD_MODULES,
             # A client, its backend and what waits: nginx takes memory for each that it may have. And a quarter more,
             # since it closes idle ones when a sixteenth is left.
             "connections": (2 * row.clients + row.idle + 128) * 5 // 4}
    kind = family(name)
    if kind == "ostler":
        words["workers"] = workers(words["mpm"], row)
        words["user"] = user_line("User {user}\nGroup {group}")
        words["log"] = "CustomLog access.log common" if row.log else ""
        words["status"] = "ExtendedStatus Off" if name == "ostler-blind" else ""
        path = os.path.join(directory, "ostler.conf")
        return fill("ostler.conf", words), path, [tools["ostler"], "-DFOREGROUND", "-f", path]
    if kind == "httpd":
        words["workers"] = workers(words["mpm"], row)
        words["user"] = user_line("User {user}\nGroup {group}")
        if words["mpm"] == "event":
            # Idle connections count against its workers too.
            words["workers"] += f"\nAsyncRequestWorkerFactor {max(2, row.idle // 32)}"
        if row.log:
            # Debian builds mod_log_config in.
            words["log"] = 'CustomLog access.log "%h %l %u %t \\"%r\\" %>s %b"'
        path = os.path.join(directory, "httpd.conf")
        return fill("httpd.conf", words), path, ["apache2", "-DFOREGROUND", "-f", path]
    if kind == "nginx":
        words["user"] = user_line("user {user} {group};")
        words["buffers"] = BUFFERS.get(name, "")
        # Beside another of its kind this would silence that one.
        words["log"] = "access_log off;"
        if row.log:
            words["log"] = ("log_format common '$remote_addr - $remote_user [$time_local] \"$request\" $status "
                            f"$body_bytes_sent';\n  access_log {directory}/access.log common;")
        path = os.path.join(directory, "nginx.conf")
        return fill("nginx.conf", words), path, ["nginx", "-p", directory, "-c", path, "-e", f"{directory}/error.log"]
    if kind == "haproxy":
        words["user"] = user_line("user {user}\n  group {group}")
        # HAProxy's large bodies: moved by the kernel, and with as much room as ostler has.
        words["buffers"] = "tune.bufsize 65536" if name == "haproxy-splice" else ""
        words["splice"] = "option splice-auto" if name == "haproxy-splice" else ""
        # Of 20,000 descriptors that a process may often have; pipes take of them, too.
        words["maxconn"] = 6000 if name == "haproxy-splice" else 9500
        path = os.path.join(directory, "haproxy.cfg")
        return fill("haproxy.cfg", words), path, ["haproxy", "-db", "-f", path]
    raise Failed(f"no contestant is called {name}")


def relay(name, row, tools, origin):
    """The command of the null relay, of the process model that its name has."""
    mpm = driver(name)
    if mpm == "event":
        return [tools["bench-relay"], origin]
    return [tools["bench-blocking-relay"], origin, *map(str, spread(mpm, row))]


class Server:
    """A program and its tree."""

    def __init__(self, name, words, cores, directory, port=None, speaks=False):
        """With `speaks` the program prints its address first, and ends when its standard input does."""
        self.name, self.port = name, port
        # Whether its connections to the backend outlive its clients': the relay's do not.
        self.keeps_backends = family(name) != "relay"
        # Bytes of a right answer, head and all, on a connection of the row's kind; known once it serves.
        self.length = None
        # Seconds that an answer, or the next piece of it, may take.
        self.patience = 30
        # Seconds that it may take to end when it is asked to.
        self.farewell = 15
        self.access_log = os.path.join(directory, "access.log")
        self.output = open(os.path.join(directory, "output"), "w+")
        self.process = subprocess.Popen(
            ["taskset", "-c", cores] + words, stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if speaks else self.output, stderr=self.output, start_new_session=True)
        if speaks:
            line = self.process.stdout.readline().decode()
            if ":" not in line:
                said = self.said()
                stop_all([self])
                raise Failed(f"{name} does not start: {said}")
            self.port = int(line.rpartition(":")[2])

    @property
    def pid(self):
        return self.process.pid

    def said(self):
        self.output.seek(0)
        return self.output.read()[-2000:]

    def counts(self):
        """Of an origin: requests answered, connections taken."""
        self.process.stdin.write(b"?")
        self.process.stdin.flush()
        answered, taken = self.process.stdout.readline().split()
        return int(answered), int(taken)

    def wait_until_serving(self, row):
        end = time.monotonic() + 30
        fault = "nothing"
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.length = self.check(row, kept=not row.close)
                return
            except (OSError, Failed) as error:
                fault = error
            time.sleep(0.01)
        raise Failed(f"{self.name} does not serve ({fault}): {self.said()}")

    def check(self, row, kept=False):
        """One request of the row's kind, whose answer must be right to the last byte: its length, head and all.

        With `kept` the answer on a kept-alive connection, and a second one on it, which is the last.
        """
        logged = self.logged()
        body = b"y" * row.body
        head = f"{row.method} {row.target} HTTP/1.1\r\nHost: bench.test\r\n"
        if row.body:
            head += f"Content-Length: {row.body}\r\n"
        length, answer = 0, bytearray()
        with socket.create_connection(("127.0.0.1", self.port), timeout=self.patience) as s:
            if kept:
                s.sendall(head.encode() + b"\r\n" + body)
                while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + row.size:
                    piece = s.recv(1 << 20)
                    if not piece:
                        raise Failed(f"{self.name} closes a connection that is to be kept, after {bytes(answer[:300])!r}")
                    answer += piece
                length = end + 4 + row.size
                self.judge(row, bytes(answer[:length]))
                del answer[:length]
            s.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
            while piece := s.recv(1 << 20):
                answer += piece
        self.judge(row, bytes(answer))
        self.judge_log(row, logged)
        return length or len(answer)

    def logged(self):
        """Bytes of its access log."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(self.access_log)
        return 0

    def judge_log(self, row, before):
        """Whether the answer just given has been logged, as the row has it; it may be later than the answer."""
        end = time.monotonic() + self.patience
        while row.log and self.logged() == before and time.monotonic() < end:
            time.sleep(0.001)
        if (self.logged() > before) != bool(row.log):
            raise Failed(f"{self.name} writes {'no' if row.log else 'an'} access log")

    def judge(self, row, answer):
        fields, _, body = answer.partition(b"\r\n\r\n")
        if not fields.startswith(b"HTTP/1.1 200 ") or body != b"x" * row.size:
            raise Failed(f"{self.name} answers {fields[:300]!r} and {len(body)} bytes, {body[:40]!r}...")

    def stop(self):
        """Ends the program: asks it, and then ends by force whoever is left of its session, as workers of a dead master are."""
        try:
            if self.process.poll() is None:
                self.ask_to_end()
                self.process.wait(self.farewell)
        except subprocess.TimeoutExpired:
            pass  # Force is next.
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
            self.output.close()
            if self.process.stdin:
                self.process.stdout.close()
                self.hang_up()

    def ask_to_end(self):
        if self.process.stdin:
            self.hang_up()
        else:
            self.process.send_signal(signal.SIGINT if family(self.name) != "httpd" else signal.SIGTERM)

    def hang_up(self):
        # A question that a dead one did not take is no fault of the ending.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def let_go(holder):
    holder.kill()
    holder.wait()


def stop_all(servers, holders=()):
    """Ends every one of them, the holders of idle connections first, even if one can't be ended or the user grows
    impatient; the first fault is raised when all have been tried.
    """
    faults = []
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for end in [partial(let_go, holder) for holder in holders] + [server.stop for server in servers]:
            try:
                end()
            except Exception as fault:
                faults.append(fault)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if faults:
        raise faults[0]


def start(name, row, directory, origin, tools, cores, extra="", own=False):
    """Starts a contestant. With `own` from a copy of its program, whose memory it then shares with no other."""
    home = os.path.join(directory, name)
    shutil.rmtree(home, ignore_errors=True)
    os.mkdir(home)
    os.chmod(home, 0o755)
    if family(name) == "relay":
        server = Server(name, relay(name, row, tools, f"127.0.0.1:{origin}"), cores, home, speaks=True)
    else:
        port = free_port()
        text, path, words = recipe(name, row, home, port, origin, tools, extra)
        with open(path, "w") as f:
            f.write(text)
        if own:
            words[0] = shutil.copy2(shutil.which(words[0]), home)
        server = Server(name, words, cores, home, port=port)
    try:
        server.wait_until_serving(row)
    except BaseException:
        stop_all([server])
        raise
    return server
