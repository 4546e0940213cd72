"""Kills a process at the n-th thing that it does to files, so that tests can say where it ends.

A thing is done by `os` or `shutil`, or is a write of a file that Python or safetensors opened. What
libraries in C do otherwise is not seen. Nothing heavy is imported.
"""

import builtins
import io
import os
import shutil
import signal

OPEN = builtins.open


class Faults:
    """Counts what is done to files below `watched`, and kills the process at one of those
    events.

    watched: folders. log: a file that gets a line for each event. shared: whether processes count
    together, by the lines of that file; the one that comes to `kill_at` ends the whole group then,
    or only its leader ("leader").
    """

    def __init__(self, watched, kill_at, log, shared=""):
        self.watched = [os.path.realpath(folder) for folder in watched]
        self.kill_at, self.log, self.shared = kill_at, log, shared
        self.count, self.pid = 0, os.getpid()

    def event(self, what, path, halfway=None):
        """halfway: does half of what comes next, in case that this is the end."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fsdecode(path))
        within = next((one for one in self.watched if f"{path}/".startswith(f"{one}/")), None)
        if os.getpid() != self.pid or within is None:
            return
        self.count += 1
        if self.log:
            with OPEN(self.log, "a") as file:
                file.write(f"{what} {os.path.relpath(path, within)}\n")
        if self.shared:
            with OPEN(self.log, "rb") as file:
                self.count = len(file.readlines())
        if self.count == self.kill_at:
            if halfway:
                halfway()
            self.kill()

    def kill(self):
        if self.shared:
            group = os.getpgid(0)
            (os.kill if self.shared == "leader" else os.killpg)(group, signal.SIGKILL)
        else:
            os.kill(self.pid, signal.SIGKILL)

    def install(self):
        for name, at in (
            ("replace", 1), ("rename", 1), ("link", 1), ("symlink", 1), ("fsync", 0), ("mkdir", 0),
            ("rmdir", 0),
        ):  # fmt: skip
            setattr(os, name, self.around(getattr(os, name), name, at))
        for name in ("unlink", "remove"):
            setattr(os, name, self.unlinking(getattr(os, name)))
        shutil.rmtree = self.removing(shutil.rmtree)
        builtins.open = io.open = self.opening

    def install_safetensors(self):
        import safetensors.torch

        safetensors.torch.save_file = self.saving(safetensors.torch.save_file)

    def around(self, function, name, at):
        def wrapped(*arguments, **settings):
            if "dir_fd" in settings:  # a part of rmtree
                return function(*arguments, **settings)
            self.event(f"before {name}", arguments[at])
            result = function(*arguments, **settings)
            self.event(f"after {name}", arguments[at])
            return result

        return wrapped

    def unlinking(self, unlink):
        def wrapped(path, **settings):
            there = not settings and os.path.lexists(path)
            if there:
                self.event("before unlink", path)
            unlink(path, **settings)
            if there:
                self.event("after unlink", path)

        return wrapped

    def removing(self, rmtree):
        def wrapped(path, *arguments, **settings):
            if os.path.isdir(path):
                self.event("before removing", path)
                self.event("half removing", path, lambda: remove_one(path))
            rmtree(path, *arguments, **settings)

        return wrapped

    def saving(self, save_file):
        def wrapped(tensors, path, *arguments, **settings):
            def half():
                save_file(tensors, path, *arguments, **settings)
                os.truncate(path, os.path.getsize(path) // 2)

            self.event("half writing", path, half)
            save_file(tensors, path, *arguments, **settings)
            self.event("written", path)

        return wrapped

    def opening(self, path, mode="r", *arguments, **settings):
        file = OPEN(path, mode, *arguments, **settings)
        if isinstance(path, int) or not set(mode) & set("wxa"):
            return file
        return Slow(file, lambda halfway: self.event("half writing", path, halfway))


class Slow:
    """A file, each write to which is an event."""

    def __init__(self, file, event):
        self.__dict__.update(_file=file, _event=event)

    def write(self, data):
        def half():
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._event(half)
        return self._file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __setattr__(self, name, value):
        setattr(self._file, name, value)


def remove_one(path):
    for folder, _, files in os.walk(path):
        if files:
            os.unlink(os.path.join(folder, min(files)))
            return


def begin():
    """Watches this process as environment variables say (test_kill_install.py)."""
    folders = os.environ["T2I_FAULTS"].split(os.pathsep)
    kill_at = int(os.environ.get("T2I_FAULTS_KILL_AT", "0"))
    log, shared = os.environ["T2I_FAULTS_LOG"], os.environ["T2I_FAULTS_ENDS"]
    Faults(folders, kill_at, log, shared).install()
