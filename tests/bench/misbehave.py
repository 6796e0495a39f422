"""Servers that answer wrongly, each in its manner, for selftest.py: misbehave.py MANNER

Prints its address, and ends when its standard input does.
"""
import contextlib
import socketserver
import sys
import threading


def answer(size, status="200 OK", letter=b"x", head_says=None):
    says = size if head_says is None else head_says
    return f"HTTP/1.1 {status}\r\nContent-Length: {says}\r\n\r\n".encode() + letter * size


# What a server does, by the number of its request: the bytes of its answer.
MANNERS = {
    "right": lambda number, size: answer(size),
    "wrong body": lambda number, size: answer(size - 1)[:-1] + b"xy" if size > 1 else answer(size),
    "short": lambda number, size: answer(size - 1),
    "cut": lambda number, size: answer(size - 1, head_says=size),
    "long": lambda number, size: answer(size + 1),
    "wrong status": lambda number, size: answer(size, status="502 Bad Gateway"),
    "nothing": lambda number, size: b"",
    "no head": lambda number, size: b"x" * size,
    # The row's first look, and no other, finds it right.
    "right once": lambda number, size: answer(size) if number == 0 else answer(size, letter=b"y"),
    # Right length and status: only a look at the body tells.
    "wrong letters": lambda number, size: answer(size, letter=b"y"),
}


def serve(manner):
    behave, numbers, lock = MANNERS[manner], iter(range(1 << 60)), threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self):
            while line := self.rfile.readline():
                fields = iter(self.rfile.readline, b"\r\n")
                close = any(field.lower().startswith(b"connection: close") for field in fields)
                with lock:
                    number = next(numbers)
                told = behave(number, int(line.split()[1].strip(b"/")))
                self.wfile.write(told)
                if close or not told:
                    return

        def finish(self):
            with contextlib.suppress(OSError):
                super().finish()

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            """A client that goes is no fault."""

    with Listener(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        print(f"127.0.0.1:{listener.server_address[1]}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
