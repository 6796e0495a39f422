"""A reader of the scoreboard file that somebody else could have written: scoreboard.py MANUAL-PAGE FILE

It knows ostler-scoreboard(5) and nothing else of Ostler. Names, offsets and sizes of fields are taken from the page's
tables, the rest from its sentences. What it finds is printed as JSON, for tests/it/reader.rs to compare with what the
program itself reads.
"""
import ipaddress
import json
import os
import re
import struct
import sys

LAYOUT = 1
TRIES = 100


def tables(page):
    """The page's tables: section -> field -> (offset, bytes)."""
    found, section = {}, None
    for line in page.splitlines():
        if line.startswith(".Ss "):
            section = line[4:].strip()
        field = re.match(r"\.It Va (\w+) Ta (\d+) Ta (\d+) Ta", line)
        if field:
            found.setdefault(section, {})[field[1]] = (int(field[2]), int(field[3]))
    return found


def letters(page):
    """States: number -> letter."""
    return {int(number): letter for number, letter in re.findall(r"^\.It (\d+) Li (?:\\&)?(\S)$", page, re.M)}


class Board:
    def __init__(self, page, path):
        self.tables, self.letters = tables(page), letters(page)
        self.file = os.open(path, os.O_RDONLY)
        self.header = self.structure("Header", 0)
        if self.bytes(0, 8) != b"OstlerSB" or self.header["layout"] != LAYOUT:
            raise SystemExit("not a scoreboard of this layout")
        if self.header["byte_order"] != 0x01020304:
            raise SystemExit("from a machine of another byte order")

    def bytes(self, at, count):
        found = os.pread(self.file, count, at)
        if len(found) != count:
            raise SystemExit(f"the file ends before {at + count}")
        return found

    def structure(self, name, at):
        """The fields of a structure: numbers of up to 8 bytes, longer ones as bytes."""
        fields = self.tables[name]
        raw = self.bytes(at, max(offset + length for offset, length in fields.values()))
        pick = lambda offset, length: raw[offset:offset + length]
        number = lambda part: int.from_bytes(part, sys.byteorder)
        return {name: number(pick(*place)) if place[1] in (1, 2, 4, 8) else pick(*place)
                for name, place in fields.items()}

    def guarded(self, counter, read):
        """`read()` between two readings of the sequence counter at `counter` that are equal and even; or None."""
        number = lambda: int.from_bytes(self.bytes(counter, 4), sys.byteorder)
        for _ in range(TRIES):
            before = number()
            value = read()
            if before % 2 == 0 and number() == before:
                return value
        return None

    def histogram(self, raw):
        return list(struct.unpack(f"={len(raw) // 8}Q", raw))

    def worker(self, at, backends):
        sequence = at + self.tables["Worker row"]["sequence"][0]
        row = self.guarded(sequence, lambda: self.structure("Worker row", at))
        if row is None:
            return {"state": "?"}
        lengths = struct.unpack("=4H", row["lengths"].to_bytes(8, sys.byteorder))
        family = row["client_family"].to_bytes(8, sys.byteorder)
        client = None
        if family[0] in (4, 6):
            address = row["client_address"][:4 if family[0] == 4 else 16]
            client = f"{ipaddress.ip_address(address)}:{int.from_bytes(family[2:4], 'big')}"
        text = lambda raw, length: raw[:min(length, len(raw))].decode("utf-8", "replace")
        return {
            "state": self.letters.get(row["state"], "."), "requests": row["requests"], "bytes_in": row["bytes_in"],
            "bytes_out": row["bytes_out"], "client": client, "host": text(row["host"], lengths[0]),
            "request": text(row["line"], lengths[1]),
            "backend": backends[row["backend"] - 1] if 0 < row["backend"] <= len(backends) else None,
        }

    def backends(self):
        """Urls by row; None where nobody is."""
        urls = []
        for place in range(self.header["backend_rows"]):
            entry = self.structure("Backend entry", self.header["backend_table"] + place * self.header["backend_entry_size"])
            urls.append(entry["url"][:min(entry["length"], len(entry["url"]))].decode() or None)
        return urls

    def read(self):
        urls = self.backends()
        sums = self.guarded(self.header["totals"], lambda: self.sums(urls))
        if sums is None:
            raise SystemExit("the totals are being written for ever")
        text = lambda name: self.header[name][:min(self.header[f"{name}_length"], len(self.header[name]))].decode()
        return {
            "version": text("version"), "server_name": text("server_name"), "listeners": text("listeners"),
            "mpm": self.header["mpm"].to_bytes(8, sys.byteorder).rstrip(b"\0").decode(),
            "master_pid": self.header["master_pid"], "generation": self.header["generation"],
            "max_request_workers": self.header["max_request_workers"], **sums,
        }

    def sums(self, urls):
        """Totals and blocks, read together."""
        sizes = {name: self.header[f"{name}_row_size"] for name in ("process", "worker", "backend")}
        buckets = self.header["histogram_buckets"]
        totals = self.structure("Totals", self.header["totals"])
        latency = self.histogram(totals["latency"])
        after = self.header["totals"] + self.tables["Totals"]["latency"][0] + 8 * buckets
        counters = [self.structure("Backend counters", after + place * sizes["backend"]) for place in range(len(urls))]
        requests, bytes_out, accepted = totals["requests"], totals["bytes_out"], totals["accepted"]
        of_backend = [row["requests"] for row in counters]
        children = []
        for slot in range(self.header["slots"]):
            entry = self.structure("Slot entry", self.header["slot_table"] + slot * self.header["slot_entry_size"])
            if entry["lent"] == 0:
                continue
            at = entry["offset"]
            process = self.structure("Process row", at)
            connections = self.structure("Connection counts", at + self.tables["Process row"]["connections"][0])
            rows = at + sizes["process"]
            workers = [self.worker(rows + place * sizes["worker"], urls)
                       for place in range(min(process["threads"], entry["workers"]))]
            behind = rows + entry["workers"] * sizes["worker"]
            latency = [one + two for one, two in zip(latency, self.histogram(self.bytes(behind, 8 * buckets)))]
            for place in range(min(entry["backends"], len(urls))):
                row = self.structure("Backend counters", behind + 8 * buckets + place * sizes["backend"])
                of_backend[place] += row["requests"]
            requests += sum(worker.get("requests", 0) for worker in workers)
            bytes_out += sum(worker.get("bytes_out", 0) for worker in workers)
            accepted += connections["accepted"]
            if process["ended"] == 0 and 1 <= process["stage"] <= 4:
                children.append({"slot": slot, "pid": process["pid"], "generation": process["generation"],
                                 "stage": process["stage"], "busy": process["busy"], "open": connections["total"],
                                 "workers": workers})
        return {"requests": requests, "bytes_out": bytes_out, "accepted": accepted, "latencies": sum(latency),
                "children": children,
                "backends": {url: count for url, count in zip(urls, of_backend) if url}}


def main():
    with open(sys.argv[1], encoding="utf-8") as page:
        print(json.dumps(Board(page.read(), sys.argv[2]).read()))


main()
