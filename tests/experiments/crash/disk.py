"""A disk that dies, fills up or fails at a chosen moment of a program's life.

While a `Disk` is entered, every change that Python makes below its root is an event:
opening to create or truncate, writing, syncing, renaming, removing, making folders,
truncating. Events are counted, and one of them goes wrong:

- ``kill``: it does not happen, and nothing after it does. (`Killed` is no `Exception`,
  and every later event raises it too, so no handler can still change the disk. With
  ``exits`` the process ends instead, as by ``kill -9``.)
- ``torn``: as ``kill``, with the first half of what was to be written.
- ``enospc``: it fails, and so does every later event that needs room.
- ``eio``: it fails once; a write after its first half.
- ``power``: as ``kill``, and then `Disk.after_power` builds what a power failure could
  have left: of each folder its names now or when it was last synced, of each file not
  synced since it changed the whole, a half, nothing, or what was synced.

What a library writes in C++ is seen only in the end: not an event, and not synced.
"""

import builtins
import errno
import io
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODES = ("kill", "torn", "enospc", "eio", "power")
# Only a write can be torn; removing needs no room.
_NEEDS_ROOM = ("open", "write", "fsync", "mkdir", "rename", "link", "truncate")


class Killed(BaseException):
    """The process is dead; what still runs is its ghost."""


def modes_of(operation: str) -> list[str]:
    """In which ways an operation can go wrong."""
    return [
        mode
        for mode in MODES
        if (mode != "torn" or operation == "write")
        and (mode != "enospc" or operation in _NEEDS_ROOM)
    ]


class Disk:
    """Counts the changes below a folder and lets one go wrong."""

    def __init__(self, root: Path, at: int = 0, mode: str = "", exits: bool = False):
        self.root = os.path.realpath(root)
        self.log: list[tuple[str, str]] = []
        self.fired = False
        self._at, self._mode, self._exits = at, mode, exits
        self._dead = self._full = False
        self._lock = threading.RLock()
        self._real: dict[tuple[Any, str], Any] = {}
        self._ids: dict[int, int] = {}
        self._next_id = 0
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._contents: dict[int, bytes] = {}

    def __enter__(self) -> "Disk":
        for name in ("rename", "replace"):
            self._patch(os, name, self._renames)
        for name in ("unlink", "remove", "rmdir"):
            self._patch(os, name, self._removes)
        self._patch(os, "mkdir", self._makes)
        self._patch(os, "open", self._os_open)
        for name in ("write", "pwrite"):
            self._patch(os, name, self._writes)
        for name in ("fsync", "fdatasync"):
            self._patch(os, name, self._syncs)
        for name in ("truncate", "ftruncate"):
            self._patch(os, name, self._truncates)
        for name in ("link", "symlink"):
            self._patch(os, name, self._links)
        self._patch(io, "open", self._opens)
        self._patch(builtins, "open", self._opens)
        return self

    def __exit__(self, *_: object) -> None:
        for (module, name), function in self._real.items():
            setattr(module, name, function)

    def _patch(self, module: Any, name: str, wrapper: Callable) -> None:
        real = getattr(module, name)
        self._real[module, name] = real
        setattr(module, name, lambda *a, **k: wrapper(real, name, *a, **k))

    # Events.

    def event(self, operation: str, path: str | None) -> bool:
        """Counts an event; raises what goes wrong. True: do half of it, then `end`."""
        if path is None or not (path + "/").startswith(self.root + "/"):
            return False
        with self._lock:
            if self._dead:
                raise Killed
            self.log.append((operation, os.path.relpath(path, self.root)))
            if self._full and operation in _NEEDS_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if len(self.log) != self._at:
                return False
            self.fired = True
            if operation == "write" and self._mode in ("torn", "eio", "enospc"):
                return True
            return self.end(path)

    def end(self, path: str) -> bool:
        """What goes wrong happens."""
        if self._mode == "enospc":
            self._full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self._mode == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self._exits:
            os._exit(137)
        self._dead = True
        raise Killed

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        if isinstance(path, int):
            try:
                return os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return os.path.abspath(path)

    def _opens(self, real: Callable, _: str, file: Any, mode: str = "r", *a, **k):
        path = None if isinstance(file, int) else self._path(file)
        if path is None or not set("wax+") & set(mode):
            return real(file, mode, *a, **k)
        new = not os.path.exists(path)
        if new or "w" in mode:
            self.event("open", path)
        if not (path + "/").startswith(self.root + "/"):
            return real(file, mode, *a, **k)
        raw = _File(path, "".join(c for c in mode if c in "wax+r"), self)
        if new:
            self._forget(raw.fileno())
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        names = ("encoding", "errors", "newline")
        return io.TextIOWrapper(buffered, **{n: k[n] for n in names if n in k})

    def _os_open(self, real: Callable, _: str, path: Any, flags: int, *a, **k):
        where = self._path(path, k.get("dir_fd"))
        new = bool(flags & os.O_CREAT) and not os.path.lexists(where or "")
        if new or flags & os.O_TRUNC:
            self.event("open", where)
        descriptor = real(path, flags, *a, **k)
        if new:
            self._forget(descriptor)
        return descriptor

    def _writes(self, real: Callable, _: str, fd: int, data: Any, *a):
        path = self._path(fd)
        if self.event("write", path):
            real(fd, bytes(data)[: len(data) // 2], *a)
            self.end(path or "")
        return real(fd, data, *a)

    def _syncs(self, real: Callable, _: str, fd: int):
        path = self._path(fd)
        self.event("fsync", path)
        if path is None or not (path + "/").startswith(self.root + "/"):
            return real(fd)
        with self._lock:
            if os.path.isdir(path):
                self._names[self._id(path)] = self._listing(path)
            elif os.path.exists(path):
                self._contents[self._id(path)] = self._read(path)
        return None

    def _renames(self, real: Callable, _: str, source: Any, target: Any, **k):
        path = self._path(source, k.get("src_dir_fd"))
        self.event("rename", path)
        replaced = self._path(target, k.get("dst_dir_fd"))
        gone = self._inode(replaced)
        result = real(source, target, **k)
        self._retire(gone)
        return result

    def _removes(self, real: Callable, name: str, path: Any, **k):
        where = self._path(path, k.get("dir_fd"))
        self.event("rmdir" if name == "rmdir" else "unlink", where)
        gone = self._inode(where)
        result = real(path, **k)
        self._retire(gone)
        return result

    def _makes(self, real: Callable, _: str, path: Any, *a, **k):
        where = self._path(path, k.get("dir_fd"))
        if not os.path.lexists(where or ""):
            self.event("mkdir", where)
        result = real(path, *a, **k)
        self._retire(self._inode(where))
        return result

    def _truncates(self, real: Callable, _: str, file: Any, length: int):
        path = self._path(file)
        if path is not None and os.path.exists(path) and os.path.getsize(path):
            self.event("truncate", path)
        return real(file, length)

    def _links(self, real: Callable, _: str, source: Any, target: Any, *a, **k):
        self.event("link", self._path(target))
        return real(source, target, *a, **k)

    # What is safe from a power failure.

    def _inode(self, path: str | None) -> int | None:
        try:
            return os.lstat(path or "").st_ino
        except OSError:
            return None

    def _id(self, path: str) -> int:
        """A file's identity; unlike its inode's number it is never given again."""
        inode = os.lstat(path).st_ino
        if inode not in self._ids:
            self._next_id += 1
            self._ids[inode] = self._next_id
        return self._ids[inode]

    def _retire(self, inode: int | None) -> None:
        self._ids.pop(inode or -1, None)

    def _forget(self, descriptor: int) -> None:
        self._retire(os.fstat(descriptor).st_ino)

    def _listing(self, folder: str) -> dict[str, tuple[int, bool]]:
        return {
            name: (self._id(path), os.path.isdir(path))
            for name in os.listdir(folder)
            if os.path.lexists(path := os.path.join(folder, name))
        }

    def _read(self, path: str) -> bytes:
        real = self._real.get((io, "open"), io.open)
        with real(path, "rb") as file:
            return file.read()

    def after_power(self, target: Path, chance: random.Random) -> None:
        """Builds in a new folder what a power failure could have left of the root."""
        alive: dict[int, str] = {self._id(self.root): self.root}
        for parent, folders, files in os.walk(self.root):
            for name in folders + files:
                path = os.path.join(parent, name)
                alive[self._id(path)] = path
        self._build_folder(self._id(self.root), target, alive, chance)

    def _build_folder(
        self, what: int, target: Path, alive: dict[int, str], chance: random.Random
    ) -> None:
        target.mkdir()
        names = self._names.get(what, {})
        if what in alive and chance.random() < 0.5:
            names = self._listing(alive[what])
        for name, (child, is_folder) in sorted(names.items()):
            if is_folder:
                self._build_folder(child, target / name, alive, chance)
            else:
                (target / name).write_bytes(self._survivor(child, alive, chance))

    def _survivor(
        self, what: int, alive: dict[int, str], chance: random.Random
    ) -> bytes:
        synced = self._contents.get(what)
        if what not in alive:
            return synced or b""
        now = self._read(alive[what])
        if now == synced:
            return now
        choices = [now, now[: len(now) // 2], b""]
        return chance.choice(choices if synced is None else [*choices, synced])


class _File(io.FileIO):
    def __init__(self, path: str, mode: str, disk: Disk):
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data: Any) -> int:
        path = os.fsdecode(self.name)
        if self._disk.event("write", path):
            super().write(bytes(data)[: len(data) // 2])
            self._disk.end(path)
        return super().write(data)
