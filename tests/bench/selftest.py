#!/usr/bin/env python3
"""Does scripts/bench see what is wrong? Its checks against servers that answer wrongly, its sums against known ones.

Needs none of the programs that are compared; the rounds under load want wrk, and are left out without it.
"""
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import bench
import contestants
import curves
import instructions
import meters
import report
from contestants import Failed, Server
from misbehave import answer
from rows import Absolute, Budget, ROWS, Row

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = str(min(os.sched_getaffinity(0)))


def quietly(act, *words):
    with contextlib.redirect_stdout(io.StringIO()):
        return act(*words)


def told(rounds, once=None):
    return {"once": once or {}, "rounds": rounds, "median": {}, "ratio": {}}


class Misbehaviour(unittest.TestCase):
    """Servers that answer wrongly, seen by what looks at a row's answers."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ostler-bench-")
        self.addCleanup(self.directory.cleanup)

    def server(self, manner):
        home = os.path.join(self.directory.name, manner.replace(" ", "-"))
        os.mkdir(home)
        words = [sys.executable, os.path.join(HERE, "misbehave.py"), manner]
        server = Server(manner, words, CORE, home, speaks=True)
        self.addCleanup(server.stop)
        return server

    def stage(self, row, *manners):
        """A row whose contestants are such servers."""
        stage = bench.Stage(row, manners, {}, self.directory.name, [CORE, CORE])
        stage.servers = {manner: self.server(manner) for manner in manners}
        for server in stage.servers.values():
            # A right answer's, as a start would have learnt it.
            server.length = len(answer(row.size))
        return stage

    def test_a_look_at_an_answer_sees_whatever_is_wrong_with_it(self):
        row = Row("test", "", size=1024)
        right = self.server("right")
        # The head that it sends has 41 bytes, on either connection.
        self.assertEqual([right.check(row), right.check(row, kept=True)], [1024 + 41] * 2)
        for manner in ("wrong body", "short", "cut", "long", "wrong status", "nothing", "no head", "wrong letters"):
            server = self.server(manner)
            with self.subTest(manner):
                with self.assertRaises(Failed) as fault:
                    server.check(row)
                self.assertIn(f"{manner} answers ", str(fault.exception))

    def test_who_is_to_log_must_and_nobody_else(self):
        server = self.server("right")
        server.patience = 0.1
        with self.assertRaises(Failed) as fault:
            server.check(Row("test", "", log=True))
        self.assertIn("right writes no access log", str(fault.exception))
        judge = server.judge

        def logging(row, told):
            with open(server.access_log, "a") as f:
                f.write("a line\n")
            judge(row, told)
        server.judge = logging
        server.check(Row("test", "", log=True))
        with self.assertRaises(Failed) as fault:
            server.check(Row("test", ""))
        self.assertIn("right writes an access log", str(fault.exception))

    def test_a_kept_connection_must_be_kept_and_its_second_answer_right_too(self):
        row = Row("test", "")
        for manner in ("nothing", "short", "long", "wrong letters", "right once"):
            server = self.server(manner)
            with self.subTest(manner), self.assertRaises((Failed, TimeoutError)):
                server.patience = 1
                server.check(row, kept=True)

    def test_a_wrong_answer_takes_its_contestant_out_of_the_row_and_no_other(self):
        stage = self.stage(Row("test", "", ("right", "wrong letters")), "right", "wrong letters")
        # What a client without eyes for the body says of the load itself.
        heard = {"requests": 100, "seconds": 1.0, "p50": 1, "p99": 2, "bytes": 0, "errors": {}}
        stage.wrk = lambda server, seconds: dict(heard)
        stage.load = lambda server, seconds, rate: figures(1.0)
        quietly(stage.play, 2, 1)
        self.assertEqual(stage.living(), ["right"])
        self.assertEqual(len(stage.rounds["right"]), 2)
        self.assertEqual(stage.rounds["wrong letters"], [])
        result = bench.summary(stage)
        self.assertIn("wrong letters answers", result["contestants"]["wrong letters"]["fault"])
        self.assertEqual(bench.exit_code({"rows": {"test": result}}), 1)
        shown = report.text({"machine": facts(), "rounds": 2, "seconds": 1, "rows": {"test": result}}, [stage.row], {})
        self.assertIn("FAILED: wrong letters: wrong letters answers b'HTTP/1.1 200 OK", shown)

    def test_answers_that_go_wrong_during_a_round_make_it_void(self):
        stage = self.stage(Row("test", "", ("right once",)), "right once")
        stage.load = lambda server, seconds, rate: figures(1.0)
        quietly(stage.play_rounds, 1, 1, 0)
        self.assertEqual((stage.living(), stage.rounds["right once"]), ([], []))

    def test_a_server_that_never_starts_or_never_serves_fails_its_row_only(self):
        home = os.path.join(self.directory.name, "false")
        os.mkdir(home)
        with self.assertRaises(Failed):
            Server("false", ["false"], CORE, home, speaks=True)
        server = Server("false", ["false"], CORE, home, port=1)
        self.addCleanup(server.stop)
        with self.assertRaises(Failed) as fault:
            server.wait_until_serving(Row("test", ""))
        self.assertIn("false does not serve", str(fault.exception))

    def test_a_round_with_a_late_client_is_played_again_by_all_but_not_for_ever(self):
        for shares, others, want in (
            ([0.0, 0.01], [0.0, 0.0], [0.0, 0.01]),
            # The second is void for one of the two only.
            ([0.0, 0.02, 0.01], [0.0, 0.001, 0.002], [0.0, 0.01]),
            ([0.02, 0.03, 0.04, 0.05], [0.0] * 4, [0.04, 0.05]),
        ):
            with self.subTest(shares):
                looks = {"nginx": iter(shares), "ostler": iter(others)}
                stage = bench.Stage(Row("test", "", tuple(looks)), looks, {}, "", [CORE, CORE])
                stage.servers = dict(zip(looks, looks))
                stage.round = lambda name, *_: figures(1.0) | {
                    "spoiled_share": next(looks[name]), "most_late": 1500, "p99_tenths": 300}
                quietly(stage.play_rounds, 2, 1, 0)
                self.assertEqual([[len(rounds) for rounds in stage.rounds.values()], list(looks["ostler"])], [[2, 2], []])
                self.assertEqual([one["spoiled_share"] for one in stage.rounds["nginx"]], want)
                said = report.spoiled(bench.summary(stage))
                self.assertEqual(said[:2], [f"{name}: 300 us are the p99 of a tenth of a second" for name in looks])
                self.assertEqual(said[2], f"the client was late itself for {want[1]:.2%} of a round's requests at most, by "
                                          "1.5 ms at most")
                self.assertEqual([line[:4] + line[-35:] for line in said[3:]],
                                 ["VOID" + "did not help: 2 of 2 rounds (more than 1%)"[-35:]] if want[1] > 0.01 else [])
        self.assertEqual(report.spoiled({"contestants": {"nginx": told([figures(1.0)])}}), [])

    def test_a_row_plays_on_while_its_rounds_leave_open_on_which_side_of_a_gate_it_is(self):
        for costs, want in (
            ([0.9] * 10, 5),  # Within, and at its goal or not.
            ([0.5] * 10, 5),
            ([1.2] * 10, 5),  # Above.
            ([0.9] * 4 + [1.2] + [0.9] * 10, 10),  # Five can't leave out their most.
            ([1.2] * 4 + [0.9] + [1.2] * 10, 10),
            ([0.9, 1.2] * 10, 15),
        ):
            with self.subTest(costs):
                row = Row("test", "", ("nginx", "ostler"), budgets=(Budget("ostler", "nginx", 1.0, 0.8),))
                stage = bench.Stage(row, row.contestants, {}, "", [CORE, CORE])
                stage.servers = dict(zip(row.contestants, row.contestants))
                left = iter(costs)
                stage.round = lambda name, *_: figures(1.0 if name == "nginx" else next(left))
                quietly(stage.play_until_decided, 5, 1, 0)
                self.assertEqual([len(rounds) for rounds in stage.rounds.values()], [want, want])

    def test_the_workers_of_a_dead_master_end_with_it(self):
        home = os.path.join(self.directory.name, "master")
        os.mkdir(home)
        # It tells its worker's number in place of a port.
        text = "import subprocess; print(f':{subprocess.Popen([\"sleep\", \"60\"]).pid}')"
        server = Server("master", [sys.executable, "-c", text], CORE, home, speaks=True)
        server.process.wait(30)
        self.assertTrue(lives(server.port))
        contestants.stop_all([server])
        self.assertFalse(lives(server.port))

    def test_who_does_not_end_when_asked_is_ended_with_its_workers(self):
        home = os.path.join(self.directory.name, "deaf")
        os.mkdir(home)
        text = "import subprocess; child = subprocess.Popen(['sleep', '60']); print(f':{child.pid}', flush=True); child.wait()"
        server = Server("deaf", [sys.executable, "-c", text], CORE, home, speaks=True)
        server.farewell = 0.1
        contestants.stop_all([server])
        self.assertEqual([server.process.returncode, lives(server.port)], [-signal.SIGKILL, False])

    def test_all_are_ended_whatever_happens_meanwhile(self):
        def impatient(number, _):
            raise Failed(f"signal {number}")
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            self.addCleanup(signal.signal, number, signal.signal(number, impatient))
        ended = []

        def server(name, fault=None):
            def stop():
                for number in numbers:
                    os.kill(os.getpid(), number)
                if fault:
                    raise fault
                ended.append(name)
            return SimpleNamespace(stop=stop)
        first, second = OSError("first"), OSError("second")
        holder = subprocess.Popen(["sleep", "60"])
        with self.assertRaises(OSError) as fault:
            contestants.stop_all([server("one"), server("", first), server("", second), server("two")], [holder])
        self.assertEqual((fault.exception, ended, holder.returncode), (first, ["one", "two"], -signal.SIGKILL))
        self.assertEqual([signal.getsignal(number) for number in numbers], [impatient] * 3)
        stage = bench.Stage(Row("test", ""), ("one", "two"), {}, "", [CORE, CORE])
        stage.servers, stage.origin, stage.holders = {"one": server("", first), "two": server("two")}, server("origin"), {}
        with self.assertRaises(OSError):
            stage.close()
        self.assertEqual(ended[2:], ["two", "origin"])

    @unittest.skipUnless(shutil.which("wrk"), "wrk is not installed")
    def test_wrk_under_load_sees_wrong_lengths_and_statuses(self):
        stage = self.stage(Row("test", "", ("right",), clients=4), "right", "short", "wrong status", "nothing")
        self.assertGreater(stage.wrk(stage.servers["right"], 1)["requests"], 0)
        for manner in ("short", "wrong status", "nothing"):
            with self.subTest(manner):
                quietly(stage.guarded, manner, stage.wrk, 1)
                self.assertIn(manner, stage.faults)

    def test_what_wrk_counts_is_held_to_what_was_asked(self):
        row = Row("test", "", clients=4)
        none = dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0)
        for heard, fault in (
            ({"requests": 100, "bytes": 110_000, "errors": none}, None),
            # Four clients may have one more under way each.
            ({"requests": 100, "bytes": 114_400, "errors": none}, None),
            ({"requests": 100, "bytes": 114_401, "errors": none}, "100 answers of 1100 bytes in 114401 bytes"),
            ({"requests": 100, "bytes": 109_999, "errors": none}, "100 answers of 1100 bytes in 109999 bytes"),
            ({"requests": 0, "bytes": 0, "errors": none}, "0 answers of 1100 bytes in 0 bytes"),
            ({"requests": 100, "bytes": 110_000, "errors": none | {"status": 1}}, "errors: {'status': 1}"),
            ({"requests": 100, "bytes": 110_000, "errors": none | {"timeout": 2}}, "errors: {'timeout': 2}"),
        ):
            with self.subTest(heard=heard):
                self.assertEqual(meters.faults(row, heard, 1100), fault)

    def test_a_round_is_what_happens_between_two_looks_at_the_middle_of_a_load(self):
        answers = iter([(1000, 64), (1500, 64), (2000, 64), (3000, 200)])
        origin = SimpleNamespace(counts=lambda: next(answers))
        row = Row("test", "", kind="open")
        server = SimpleNamespace(pid=os.getpid(), length=1, keeps_backends=True)
        client = lambda: subprocess.Popen([sys.executable, "-c", 'print(\'{"requests": 9, "p50": 1, "p99": 2}\')'],
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seen = meters.loaded(row, server, origin, client(), 0, 0.01)
        self.assertEqual((seen["requests"], seen["dials"], seen["p99"]), (500, 0.0, 2))
        self.assertTrue(0 < seen["rps"] < 50_000)
        # A connection to the backend for every seventh request: that is no pool.
        with self.assertRaises(ValueError) as fault:
            meters.loaded(row, server, origin, client(), 0, 0.01)
        self.assertIn("136 connections to the backend for 1000 requests", str(fault.exception))

    def test_a_living_process_and_its_dead_children_are_in_the_account(self):
        before = meters.cpu(os.getpid())
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"], check=True)
        self.assertGreater(meters.cpu(os.getpid()) - before, 0.15)

    def test_memory_that_may_not_be_seen_is_a_fault_and_not_nothing(self):
        self.assertGreater(meters.pss(os.getpid()), 1000)
        for gone in (FileNotFoundError, ProcessLookupError):
            with mock.patch("meters.open", create=True, side_effect=gone):
                self.assertEqual(meters.pss(os.getpid()), 0)
        with mock.patch("meters.open", create=True, side_effect=PermissionError), self.assertRaises(PermissionError) as fault:
            meters.pss(os.getpid())
        self.assertIn("CAP_SYS_PTRACE is missing", str(fault.exception))

    def test_the_open_loop_client_comes_before_all_others_where_that_is_permitted(self):
        self.addCleanup(meters.before_all_others.cache_clear)
        for code, want in ((0, ["chrt", "--fifo", "1"]), (1, [])):
            meters.before_all_others.cache_clear()
            with mock.patch("meters.subprocess.run", return_value=SimpleNamespace(returncode=code)):
                self.assertEqual(meters.before_all_others(), want)

    def test_a_client_that_fails_or_tells_nothing_is_a_fault(self):
        for text in ("import sys; sys.exit('broken')", "print('no figures')"):
            client = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stage = bench.Stage(Row("test", ""), ("ostler",), {}, self.directory.name, [CORE, CORE])
            self.assertIsNone(quietly(stage.guarded, "ostler", lambda _: meters.told(client, 30)))
            self.assertEqual(stage.living(), [])


def lives(pid, patience=5):
    """Whether a process is still there after a signal has had its time to arrive; who waits to be reaped is not."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if meters.fields(pid)[0] in "ZX":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.01)
    return True


def facts():
    return dict.fromkeys(("cpu", "cores", "kernel", "rustc", "ostler", "nginx", "haproxy", "httpd", "wrk", "load_before"), "-")


def figures(cpu, p99=1.0, requests=1):
    return {"cpu": cpu, "rps": 1.0, "p50": 1.0, "p99": p99, "switches": 0.0, "requests": requests}


def played(row, **rounds):
    """A stage as it is after its rounds."""
    return SimpleNamespace(row=row, rounds=rounds, faults={}, once={name: {} for name in rounds})


class Sums(unittest.TestCase):
    def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians(self):
        row = Row("test", "", ("nginx", "ostler"))
        stage = played(row, nginx=[figures(cpu) for cpu in (10.0, 20.0, 60.0)],
                       ostler=[figures(cpu) for cpu in (10.0, 40.0, 30.0)])
        result = bench.summary(stage)["contestants"]
        self.assertEqual(result["ostler"]["median"]["cpu"], 30.0)
        self.assertEqual(result["ostler"]["ratio"]["cpu"], [1.0, 0.5, 2.0])
        self.assertEqual(result["nginx"]["ratio"]["cpu"], [1.0, 1.0, 1.0])
        # Nothing is divided by nothing, and requests are no merit.
        self.assertNotIn("switches", result["ostler"]["ratio"])
        self.assertNotIn("requests", result["ostler"]["ratio"])

    def test_a_tail_is_looked_at_in_many_short_rounds(self):
        usual, tail = Row("test", ""), Row("test", "", kind="open")
        self.assertEqual((usual.rounds(8), usual.seconds(4)), (8, 4))
        self.assertEqual((tail.rounds(8), tail.seconds(4)), (40, 1))

    def test_rounds_of_an_earlier_run_count_if_all_were_in_it(self):
        row = Row("test", "", ("nginx", "ostler"))
        stage = bench.Stage(row, row.contestants, {}, "", [CORE, CORE])
        whole = {name: told([figures(1.0), figures(2.0)]) for name in row.contestants}
        for before, want in (({}, 0), ({"nginx": whole["nginx"]}, 0), (whole | {"ostler": {"fault": "gone"}}, 0), (whole, 2)):
            stage.go_on({"contestants": before})
            self.assertEqual([len(rounds) for rounds in stage.rounds.values()], [want] * 2)
        machine = facts() | {"rustc": "1"}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump({"machine": machine, "rounds": 5, "seconds": 1, "rows": {"test": {}}}, f)
            f.flush()
            results = {"machine": dict(machine), "seconds": 1}
            self.assertEqual(bench.earlier(f.name, results), {"test": {}})
            for other in ({"machine": machine | {"ostler": "another"}, "seconds": 1}, {"machine": machine, "seconds": 2}):
                with self.assertRaises(SystemExit):
                    bench.earlier(f.name, other)

    def test_a_reference_that_failed_gives_no_ratios(self):
        row = Row("test", "", ("nginx", "ostler"))
        stage = played(row, nginx=[figures(1.0)], ostler=[figures(2.0), figures(2.0)])
        stage.faults["nginx"] = "nginx: gone"
        result = bench.summary(stage)
        self.assertEqual(result["contestants"]["ostler"]["ratio"], {})
        self.assertEqual(report.title(row, result), "test: ; no ratios: nginx failed")

    def test_a_pair_is_told_by_the_median_of_its_rounds(self):
        row = Row("test", "", pairs=(("on", "off"),))
        result = {"contestants": {"on": told([figures(cpu) for cpu in (1.0, 4.0, 3.0)]),
                                  "off": told([figures(cpu) for cpu in (1.0, 2.0, 2.0)])}}
        self.assertEqual(report.paired(row, result), ["cpu of on / off: 1.500; rounds 1.000 to 2.000"])
        self.assertEqual(report.paired(row, {"contestants": {}}), [])

    def test_the_table_stands_between_its_marks_and_nowhere_else(self):
        with open(os.path.join(HERE, "results.json")) as f:
            results = json.load(f)
        begin, end = report.MARKS
        put = report.put_table(f"before\n{begin}\nold\n{end}\nafter\n", results, ROWS)
        self.assertTrue(put.startswith(f"before\n{begin}\n| work | ostler |"))
        self.assertTrue(put.endswith(f"\n{end}\nafter\n"))
        self.assertNotIn("old", put)
        self.assertEqual(report.put_table(put, results, ROWS), put)
        ratio = results["rows"]["1k-64"]["contestants"]["ostler"]["ratio"]["cpu"][0]
        self.assertIn(f"| 1 KiB, 64 kept-alive clients | {ratio:.2f} (", put)
        with self.assertRaises(SystemExit):
            report.put_table("no marks", results, ROWS)

    def test_the_readme_has_the_table_of_the_committed_results(self):
        with open(os.path.join(HERE, "results.json")) as f:
            results = json.load(f)
        with open(os.path.join(HERE, "..", "..", "README.md")) as f:
            readme = f.read()
        self.assertEqual(report.put_table(readme, results, ROWS), readme)

    def test_rounds_are_told_from_the_least_to_the_most(self):
        row = lambda *counts: {"contestants": {f"{place}": told([figures(1.0)] * count) for place, count in enumerate(counts)}}
        for rows, want in (({}, "5"), ({"a": row(8, 8)}, "8"), ({"a": row(8, 8), "b": row(24, 24)}, "8 to 24"),
                           ({"a": row(8, 8), "b": {"contestants": {"nginx": {"fault": "gone"}}}}, "8")):
            self.assertEqual(report.rounds_played({"rounds": 5, "rows": rows}), want)

    def test_the_title_names_a_reference_only_if_there_is_one(self):
        row = Row("test", "it", ("nginx", "ostler"))
        for names, want in ((("nginx", "ostler"), "test: it; ratios to nginx"),
                            (("ostler",), "test: it; no ratios: nginx was left out")):
            stage = played(row, **{name: [figures(1.0)] for name in names})
            self.assertEqual(report.title(row, bench.summary(stage)), want)
        stage = played(replace(row, kind="start"), ostler=[{"start_ms": 1.0}])
        self.assertEqual(report.title(stage.row, bench.summary(stage)), "test: it")

    def test_budgets_are_judged_by_the_median_of_the_rounds_ratios(self):
        budget = Budget("ostler", "nginx", gate=0.9, goal=0.8)
        row = Row("test", "", budgets=(budget,))
        for ours, want in (
            ((0.8, 0.7, 0.8), "0.8 (0.7 to 0.8), at its goal (0.8)"),
            ((0.8, 0.8, 5.0), "0.8 (0.8 to 5), at its goal, not surely (0.8)"),
            ((0.85, 0.1, 0.9), "0.85 (0.1 to 0.9), within its gate (0.9; goal 0.8)"),
            ((0.85, 0.1, 0.91), "0.85 (0.1 to 0.91), within its gate, not surely (0.9; goal 0.8)"),
            ((0.7, 0.8, 1.2, 1.4), "1 (0.7 to 1.4), above its gate, not surely (0.9; goal 0.8)"),
            ((0.91, 1.2, 1.4), "1.2 (0.91 to 1.4), above its gate (0.9; goal 0.8)"),
            # One of eight at either end is left out.
            ((0.1, *[0.5] * 3, *[0.7] * 3, 9.0), "0.6 (0.5 to 0.7), at its goal (0.8)"),
        ):
            want = [f"budget: cpu of ostler / nginx: {want}"] + ["  profile: p; tried: t; next: n"] * ("at its goal" not in want)
            result = {"contestants": {"ostler": told([figures(cpu) for cpu in ours]),
                                      "nginx": told([figures(1.0) for _ in ours])}}
            notes = {"test: cpu of ostler / nginx": {"profile": "p", "tried": "t", "next": "n"}}
            self.assertEqual(report.judged(row, result, notes), want)
            self.assertEqual(report.misses(row, result), ["cpu of ostler / nginx"] if "above" in want[0] else [])
        # Without one of the two there is nothing to judge.
        self.assertEqual(report.judged(row, {"contestants": {"ostler": told([figures(1.0)])}}, {}), [])

    def test_an_interval_leaves_out_at_either_end_what_its_confidence_permits(self):
        for rounds, out in ((1, 0), (4, 0), (5, 0), (7, 0), (8, 1), (10, 1), (11, 2), (16, 4), (100, 41)):
            values = [(7 * place) % 101 for place in range(1, rounds + 1)]
            self.assertEqual(report.interval(values), (sorted(values)[out], sorted(values)[-1 - out]), rounds)

    def test_a_table_tells_the_core_used_and_no_p99_of_few_answers(self):
        row = Row("test", "", ("nginx", "ostler", "haproxy"))
        most = lambda cpu, requests: [figures(cpu, 7.0, requests) | {"rps": 2e4} for requests in (5000, requests)]
        stage = played(row, nginx=most(20.0, 1000), ostler=most(10.0, 999), haproxy=most(40.0, 1000))
        head, *lines = [line.split("  ") for line in report.table(row, bench.summary(stage))]
        head, *lines = [[cell.strip() for cell in line if cell.strip()] for line in (head, *lines)]
        p99, core = head.index("p99 us"), head.index("core")
        self.assertEqual([line[p99:p99 + 2] for line in lines], [["7", "1.000"], ["-", "-"], ["7", "1.000"]])
        self.assertEqual([line[core] for line in lines], ["0.40", "0.20", "0.80"])
        # What the reference has none of gives no ratios.
        stage = played(row, nginx=most(20.0, 999), ostler=most(10.0, 1000))
        self.assertEqual(report.table(row, bench.summary(stage))[2].split()[8:11], ["1.000", "7", "-"])

    def test_rounds_are_not_added_to_chosen_rows(self):
        said = io.StringIO()
        with mock.patch("sys.argv", ["bench", "--more", "some.json", "--only", "1k-8"]), contextlib.redirect_stderr(said):
            with self.assertRaises(SystemExit):
                bench.read_arguments()
        self.assertIn("--more goes on with all rows", said.getvalue())

    def test_a_row_may_set_the_workers_of_a_child(self):
        for row, want in ((Row("test", "", clients=64), 80), (Row("test", "", kind="start"), 25), (Row("test", "", threads=3), 3)):
            self.assertIn(f"ThreadsPerChild {want}\nMaxRequestWorkers {want}\n", contestants.workers("event", row))

    def test_figures_with_a_budget_of_their_own_are_judged_in_their_unit(self):
        row = Row("test", "", budgets=(Absolute("ostler", "pss_kib", 6144, 4096),))
        result = {"contestants": {"ostler": told([], {"pss_kib": 5000})}}
        self.assertEqual(report.judged(row, result, {}), [
            "budget: ostler pss_kib: 5e+03, within its gate (6144; goal 4096)",
            "  nothing is known of that yet: notes.ini has no note"])

    def test_each_note_tells_all_of_a_budget_that_there_is(self):
        there = {f"{row.name}: {report.budget_name(budget)}" for row in ROWS for budget in row.budgets}
        for name, note in report.read_notes().items():
            with self.subTest(name):
                self.assertIn(name, there)
                self.assertEqual(tuple(note), report.NOTE_PARTS)
                self.assertTrue(all(words.strip() for words in note.values()))

    def test_a_note_is_wrapped_below_its_budget(self):
        row = Row("test", "", budgets=(Absolute("ostler", "start_ms", 50, 20),))
        note = dict.fromkeys(report.NOTE_PARTS, "some words\n and more " * 10)
        lines = report.noted(row, row.budgets[0], {"test: ostler start_ms": note})
        self.assertGreater(len(lines), 3)
        self.assertTrue(all(line.startswith("  ") and len(line) <= report.WIDTH for line in lines))
        self.assertTrue(lines[0].startswith("  profile: some words and more some words"))

    def test_a_curves_points_have_ratios_to_their_own_first_and_to_the_reference(self):
        looks = [{"pss_kib": 1, "cpu_at_rest": 0.0}, {"pss_kib": 2, "cpu_at_rest": 0.0}]
        ours = curves.points((1, 8), [[10.0, 20.0, 30.0], [20.0, 60.0, 30.0]], looks)
        self.assertEqual([point["ratio"] for point in ours], [1.0, 2.0])
        self.assertEqual([point["pss_kib"] for point in ours], [1, 2])
        theirs = curves.points((1, 8), [[20.0, 40.0, 60.0], [20.0, 60.0, 20.0]], looks)
        both = curves.beside(ours, theirs)
        # Of each round, then the median: not the medians' ratio, which is 1.5 at the second point.
        self.assertEqual([point["of_reference"] for point in both], [0.5, 1.0])
        self.assertEqual([point["reference"]["ratio"] for point in both], [1.0, 1.0])
        self.assertEqual(curves.beside(ours, None), ours)
        results = {"machine": facts() | {"load_after": "-"}, "rounds": 3, "seconds": 1,
                   "curves": {"children": {"what": "children", "reference": "nginx", "points": both},
                              "rules": {"what": "rules", "reference": "", "points": ours}},
                   "spread": {"offered_rps": 1, "busy_share": 0.5, "uneven_busy": 0.0, "uneven_requests": 0.0, "runs": [
                       {"busy": [1.0], "busy_share": 0.5, "uneven_busy": 0.0, "requests": [1], "uneven_requests": 0.0}]},
                   "burst": {"connections": 1, "ratio": 1.0, "runs": [{"pss_kib": [1, 2, 1], "ratio": 1.0}]}}
        shown = [line.split() for line in curves.text(results).splitlines()]
        for line in ("1 ostler 20.00 1.000 - 0.0000 1 0.500", "nginx 40.00 1.000 - 0.0000 1", "8 ostler 30.00 2.000 - 0.0000 2 1.000"):
            self.assertIn(line.split(), shown)
        drawn = curves.svg(results)
        self.assertEqual(drawn.count("<circle"), 6)
        self.assertIn("ours / nginx", drawn)

    def test_the_committed_results_can_be_shown(self):
        with open(os.path.join(HERE, "results.json")) as f:
            results = json.load(f)
        self.assertIn("budget: cpu of ostler / nginx: ", report.text(results, ROWS))
        self.assertTrue(report.svg(results, ROWS).startswith("<svg"))
        with open(os.path.join(HERE, "curves.json")) as f:
            results = json.load(f)
        self.assertIn("connections: idle connections beside", curves.text(results))
        self.assertTrue(curves.svg(results).startswith("<svg"))


if __name__ == "__main__":
    unittest.main()
