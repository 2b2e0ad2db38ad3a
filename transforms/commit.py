"""Writing an output's files so that a reader sees all of a file or nothing of it.

A file is first written under a random name in the run's own folder, OUTPUT/_attempts/<run>/, synced
to disk, and then given its final name by link or rename. In gs:// one conditional request does all
of it. Elsewhere the filesystem's own rename has to do.
"""

import posixpath
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

from policy.errors import OutputInUse
from policy.files import place, place_copy
from transforms import bucket, files
from transforms.at_once import at_once
from transforms.files import FoundFile, matched, read_bytes

ATTEMPTS = "_attempts"
"""The folder, in the root of every output, that holds files still being written, and those that
only the workers of a run read."""

RUN = "_run.json"
"""Where an output says what it is made by, before anything else is there."""

_LONGEST_TAIL = 100


@dataclass(frozen=True)
class Output:
    """Where a run writes: below `root`, or while it builds the next result, below root/folder.

    `run` is the run's own name, unlike that of any other. `says` is what RUN says, where that is
    guarded: it changes when the place is given to a result that is made by something else.
    """

    root: str
    run: str
    folder: str = ""
    says: bytes | None = None

    @property
    def path(self) -> str:
        """The folder that names are below."""
        return posixpath.join(self.root, self.folder) if self.folder else self.root

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there; returns whether it is ours that stands now."""
        final = posixpath.join(self.path, name)
        if final.startswith(bucket.SCHEME):
            return bucket.create(final, content) is not None
        if "://" in final:
            if FileSystems.exists(final):
                return False
            self._rename(name, content, final)
            return True
        return place(content, Path(self._attempt(name)), Path(final), replace=False)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, replacing what was there."""
        final = posixpath.join(self.path, name)
        if final.startswith(bucket.SCHEME):
            bucket.replace(final, content)
        elif "://" in final:
            self._rename(name, content, final)
        else:
            place(content, Path(self._attempt(name)), Path(final))

    def note(self, name: str) -> None:
        """Put down an empty file that only workers of the same run look for, unless it is there.

        It is not synced to disk, as what they do not outlast it need not outlast either.
        """
        final = posixpath.join(self.path, name)
        if "://" in final:
            self.create(name, b"")
        else:
            Path(final).parent.mkdir(parents=True, exist_ok=True)
            Path(final).touch()

    def keep(self, name: str, content: bytes) -> str:
        """Write a file for the workers of this run alone, which goes when it ends; its path."""
        replace(self, folder="").replace(posixpath.join(ATTEMPTS, self.run, name), content)
        return self.own(name)

    def own(self, name: str) -> str:
        """The path of what only the workers of this run read, and which goes when it ends."""
        return posixpath.join(self.root, ATTEMPTS, self.run, name)

    def copy(self, name: str, final: str) -> None:
        """Give a file of the output a second name, replacing what had it."""
        source, wanted = posixpath.join(self.path, name), posixpath.join(self.path, final)
        if wanted.startswith(bucket.SCHEME):
            bucket.copy(source, wanted)
        elif "://" in wanted:
            self.replace(final, self.read(name, "a file of the new result"))
        else:
            place_copy(Path(source), Path(self._attempt(final)), Path(wanted))

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        path = posixpath.join(self.path, name)
        if "://" not in path:
            Path(path).unlink(missing_ok=True)
        elif path.startswith(bucket.SCHEME):
            bucket.delete(path)
        elif files.exists(path):
            files.delete(FoundFile(path, 0, 0.0))

    def delete_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there; on a local filesystem, all at once.

        What is left of it there, if the run is killed, goes with the attempts of the run.
        """
        path = posixpath.join(self.path, name)
        if "://" not in path:
            gone = Path(self._attempt(name))
            gone.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                Path(path).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        else:
            at_once(files.delete, _match(path, ""))

    def read(self, name: str, what: str) -> bytes:
        """All of a file; `what` names it in the InputError if it cannot be read."""
        return read_bytes(posixpath.join(self.path, name), what)

    def check_ours(self) -> None:
        """Raise OutputInUse if the place was given to another result since this run began.

        To be asked before what another made is replaced: a worker may outlive its run.
        """
        if self.says is not None and self.read(RUN, "what the output is made by") != self.says:
            raise OutputInUse(
                f"{self.path}: holds what is made by something else by now; this worker is of a "
                "run that was given up"
            )

    def _attempt(self, name: str) -> str:
        own = posixpath.join(ATTEMPTS, self.run, "")
        tail = name.removeprefix(own).replace("/", "__")[-_LONGEST_TAIL:]
        return posixpath.join(self.root, own, f"{secrets.token_hex(8)}.{tail}")

    def _rename(self, name: str, content: bytes, final: str) -> None:
        attempt = self._attempt(name)
        with FileSystems.create(attempt, compression_type="uncompressed") as file:
            file.write(content)
        FileSystems.rename([attempt], [final])


def existing(folder: str, extension: str) -> set[str]:
    """Names below a folder, without the extension, of the files that have it."""
    return {name.removesuffix(extension) for name in found_files(folder, extension)}


def found_files(folder: str, extension: str = "") -> dict[str, FoundFile]:
    """The files below a folder that have this extension, by their names there."""
    prefix = folder.rstrip("/") + "/"
    return {file.path.removeprefix(prefix): file for file in _match(folder, extension)}


def _match(folder: str, extension: str) -> list[FoundFile]:
    return matched(posixpath.join(files.escaped(folder), "**" + extension))
