"""What has come since the last night: new, late and rewritten shards, by name and identity."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from policy.errors import InputError, shown
from transforms.shards import Shard, match_shards
from transforms.shards.shard import path_of


@dataclass(frozen=True)
class Survey:
    """The shards that have no labels yet, or labels of something else than what is there now.

    `late` ones are older than the beginning of the last night, which did not see them.
    """

    new: tuple[Shard, ...] = ()
    late: tuple[Shard, ...] = ()
    rewritten: tuple[Shard, ...] = ()

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them, in the order of their paths."""
        found = (*self.new, *self.late, *self.rewritten)
        return tuple(sorted(found, key=lambda shard: (shard.path, shard.name)))

    def counts(self, names: Collection[str]) -> tuple[int, int, int]:
        """How many of the shards of these names are new, late and rewritten."""
        new, late, rewritten = (
            sum(shard.name in names for shard in kind)
            for kind in (self.new, self.late, self.rewritten)
        )
        return new, late, rewritten


def survey(patterns: Sequence[str], inputs: Mapping[str, str], since: str | None) -> Survey:
    """Compare what is there now with what is labelled; `since` is when the last night began.

    `inputs` are the identities of the labelled shards by name. Raises InputError if a shard was
    labelled under another name: its records would be there twice.
    """
    shards = match_shards(patterns)
    fresh = [shard for shard in shards if shard.name not in inputs]
    _check_names(fresh, inputs)
    before = datetime.fromisoformat(since).timestamp() if since else 0.0
    return Survey(
        new=tuple(shard for shard in fresh if not 0 < shard.modified < before),
        late=tuple(shard for shard in fresh if 0 < shard.modified < before),
        rewritten=tuple(
            shard for shard in shards if inputs.get(shard.name, shard.identity) != shard.identity
        ),
    )


def unchanged(patterns: Sequence[str], shards: Sequence[Shard]) -> tuple[Shard, ...]:
    """Those of these shards that are still what they were when they were found."""
    now = {shard.name: shard.identity for shard in match_shards(patterns)}
    return tuple(shard for shard in shards if now.get(shard.name) == shard.identity)


def dissolved(
    patterns: Sequence[str], labelled: Sequence[Shard], inputs: Mapping[str, str]
) -> set[str]:
    """The groups of plain image files that are no more, in the folders of labelled ones.

    A folder that lost files has fewer groups, and what was in the last one is in another now.
    """
    now = {shard.name for shard in match_shards(patterns)}
    folders = {shard.path for shard in labelled if shard.files}
    return {name for name in inputs.keys() - now if path_of(inputs[name]) in folders}


def _check_names(fresh: Sequence[Shard], inputs: Mapping[str, str]) -> None:
    names = {path_of(identity): name for name, identity in inputs.items()}
    for shard in fresh:
        if shard.path in names and not shard.files:  # groups of image files share their folder
            raise InputError(
                f"{shown(shard.path)}: is labelled as shard {shown(names[shard.path])!r}, and by "
                f"the job's input it is {shown(shard.name)!r} now, so its records would be there "
                "twice. Change the input back (a shard is named by its path below the part of the "
                "glob that has no wildcard), or choose another output"
            )
