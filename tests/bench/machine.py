"""What the machine has: programs to be installed or built, and facts that belong to every figure."""
import json
import os
import platform
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COUNTING = os.path.join(ROOT, "tests", "bench", "counting.toml")
# A program, and the Debian package that has it.
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "apache2": "apache2-bin", "wrk": "wrk",
            "taskset": "util-linux", "chrt": "util-linux", "valgrind": "valgrind"}


def find_servers():
    """Debian keeps servers where only root's PATH looks."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"


def install(programs):
    """Installs with apt what of `programs` is missing, or ends with a sentence."""
    missing = sorted({PACKAGES[program] for program in programs if not shutil.which(program)})
    if not missing:
        return
    if subprocess.run([os.path.join(ROOT, "tests", "apt-install")] + missing).returncode != 0:
        # It has said why.
        raise SystemExit(1)
    still = [program for program in programs if not shutil.which(program)]
    if still:
        raise SystemExit(f"still missing after apt-get install: {' '.join(still)}")


def two_cores():
    """A core for the proxy and one for client and origin, or ends with a sentence."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("a second core is missing: client and origin would share the proxy's")
    return [str(core) for core in available[:2]]


def cargo(words, failure, **options):
    """What cargo did here; if it could not, the end, with the sentence `failure`."""
    try:
        done = subprocess.run(["cargo"] + words, cwd=ROOT, **options)
    except FileNotFoundError:
        raise SystemExit("missing: cargo; a toolchain comes from https://rustup.rs") from None
    if done.returncode != 0:
        raise SystemExit(failure)
    return done


def build(examples, ostler=None):
    """Paths of the release builds of the daemon (unless one is given) and of these examples."""
    words = [] if ostler else ["--bin", "ostler"]
    for example in examples:
        words += ["--example", example]
    # Without a word cargo would build everything.
    if words:
        cargo(["build", "--release", "--locked", "--quiet"] + words, "the release build failed")
    release = os.path.join(target_directory(), "release")
    tools = {example: os.path.join(release, "examples", example) for example in examples}
    tools["ostler"] = os.path.abspath(ostler) if ostler else os.path.join(release, "ostler")
    return tools


def build_to_count(example):
    """The path of an example, built as COUNTING says."""
    cargo(["--config", COUNTING, "build", "--locked", "--quiet", "--example", example], f"the build of {example} failed")
    return os.path.join(target_directory(), "debug", "examples", example)


def target_directory():
    words = ["metadata", "--locked", "--no-deps", "--format-version", "1"]
    found = cargo(words, "cargo metadata failed", stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout)["target_directory"]


def output(words):
    try:
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        return (done.stdout + done.stderr).strip()
    except OSError:
        return ""


def load():
    with open("/proc/loadavg") as f:
        return " ".join(f.read().split()[:3])


def facts(tools):
    """What figures depend on besides the programs' own merit."""
    model = "unknown"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    # What the daemon is made of: its figures stay its own when something else changes.
    sources = ["--", "src", "Cargo.toml", "Cargo.lock"]
    changed = "+changes" if output(["git", "status", "--porcelain"] + sources) else ""
    first = lambda words: (output(words).splitlines() or ["unknown"])[0]
    return {
        "cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
        "rustc": first(["rustc", "--version"]),
        "ostler": first([tools["ostler"], "-v"]) + f" ({first(['git', 'log', '-1', '--format=%h'] + sources)}{changed})",
        "nginx": first(["nginx", "-v"]), "haproxy": first(["haproxy", "-v"]), "httpd": first(["apache2", "-v"]),
        "wrk": first(["wrk", "-v"]), "load_before": load(),
    }
