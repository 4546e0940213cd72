"""Runs `t2i` in processes that may be hurt: one process imports everything once, and forks one for
each request.

Requests come on stdin and answers go to stdout, a JSON document a line:
{"start": {...}} -> {"pid": N}        {"wait": N} -> {"code": as subprocess has it, negative for a
signal} {"load": "ldm"} -> {}                 imports what training this model takes, for all that
are started later {"import": ["a.b"]} -> {}   imports modules, likewise

start: `argv` of the command; `cwd`, `out` and `err`: where it runs and what it says; `environment`.
watched: a folder; each thing done to files in it (written by half, synced, moved, removed) is an
    event (faults.py).
kill_at: the event at which the process kills itself. events: a file that gets a line for each.
order: a file that gets a line for each batch: step, part, keys and captions. fsize, memory: limits
in bytes of a file, and of memory beyond what is in use. script: Python source to run before
the command, or in its place if there is no `argv`.
"""

import atexit
import importlib
import json
import os
import resource
import signal
import sys
import traceback

import faults

TIME_LIMIT = 300


def main():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    load_command()
    for line in sys.stdin:
        request, answer = json.loads(line), {}
        if "wait" in request:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
        elif "load" in request:
            load_model(request["load"])
        elif "import" in request:
            for name in request["import"]:
                importlib.import_module(name)
        else:
            pid = os.fork()
            if pid == 0:
                child(**request["start"])
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    os._exit(0)  # libraries that were never used have things to say about their end


def load_command():
    """The imports that any command makes. No network is built: threads would not survive the
    fork."""
    import torch._dynamo  # Adam would import it in every child
    import torch.fx.experimental.symbolic_shapes  # noqa: F401, and attention this

    import t2i.cli.main
    import t2i.cli.sample
    import t2i.cli.train
    import t2i.core.engine.training  # noqa: F401

    os.fsync = lambda _: None  # what a killed process has written stays, synced or not


def load_model(name):
    """The imports that training a model's tiny preset makes."""
    from t2i.core.registry.specs import import_object
    from t2i.core.registry.tables import registry
    from t2i.core.runs import configure as runs

    config, tables = runs.resolve_config(name), registry()
    chosen = (
        tables.models[name], tables.encoders[config.encoder.name],
        tables.samplers[config.sampler.name],
        tables.datasets[config.data.name],
    )  # fmt: skip
    for spec in chosen:
        for attribute in ("build", "generator", "stages", "fit"):
            if getattr(spec, attribute, None):
                import_object(getattr(spec, attribute))


def child(
    argv=(), *, cwd, out, err, environment=None, watched=None, kill_at=None, events=None,
    order=None, fsize=None,
    memory=None, script=None,
):  # fmt: skip
    """Never returns."""
    code = 99
    try:
        os.setpgid(0, 0)
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
        signal.alarm(TIME_LIMIT)
        os.chdir(cwd)
        os.environ.update(environment or {})
        if watched:
            found = faults.Faults([watched], kill_at, events)
            found.install()
            found.install_safetensors()
        if order:
            note_order(order)
        if memory:
            limit = virtual_size() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if fsize:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fsize, fsize))
        code = run(argv, script)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def run(argv, script):
    if script is not None:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        if not argv:
            return 0
    from t2i.cli.main import main as command

    sys.argv = ["t2i", *argv]
    code = command(argv)
    atexit._run_exitfuncs()
    return code


def virtual_size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def note_order(path):
    from t2i.core.engine.batches import BatchMaker

    make, plain = BatchMaker.make, faults.OPEN  # what is noted here is no event

    def noted(self, host, step, shard, part=0):
        if step >= 0:
            with plain(path, "a") as file:
                file.write(json.dumps([step, part, host.keys, host.captions]) + "\n")
        return make(self, host, step, shard, part)

    BatchMaker.make = noted


if __name__ == "__main__":
    main()
