"""Connections that have had one answer and now only wait: idle.py PORT COUNT TARGET SIZE

Prints `ready` once all are there, and the number that are still open once its standard input ends.
"""
import resource
import socket
import sys


def main():
    port, count, target, size = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET {target} HTTP/1.1\r\nHost: bench.test\r\n\r\n".encode()
    conns = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", port), timeout=30)
        s.sendall(request)
        answer = b""
        while len(answer.partition(b"\r\n\r\n")[2]) < size:
            piece = s.recv(65536)
            if not piece:
                raise SystemExit(f"closed after {len(conns)} connections")
            answer += piece
        s.setblocking(False)
        conns.append(s)
    print("ready", flush=True)
    sys.stdin.read()
    still = 0
    for s in conns:
        try:
            s.recv(1)
        except BlockingIOError:
            still += 1
        except OSError:
            pass
    print(still, flush=True)


main()
