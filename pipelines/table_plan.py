"""What a run of extract has to do to a table, and the manifest of what came of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.accounting import has_failed
from pipelines.made_by import check_made_by
from pipelines.output import Session, marker_sums
from pipelines.table import files, held_files
from pipelines.words import changed
from policy.errors import InputError
from policy.manifest import WrittenFile
from policy.rows import OK
from policy.table_manifest import TableManifest, marker_path
from transforms.at_once import at_once
from transforms.commit import Output, found_files
from transforms.done import Says, read_marker
from transforms.shards import Shard

Place = tuple[str, str]
"""A network and a shard, by name."""


@dataclass(frozen=True)
class Plan:
    """What a run over these shards has to do.

    `planned` is the manifest the table will have, `made_by` what decides the answers of each
    network of the run. `old` are done and stay; `new` were done by an earlier run of the same kind
    in a result that is still in the making.
    """

    session: Session[TableManifest]
    planned: TableManifest
    shards: tuple[Shard, ...]
    made_by: Mapping[str, Mapping[str, str]]
    old: Mapping[Place, Says]
    new: Mapping[Place, Says]

    @classmethod
    def of(
        cls,
        session: Session[TableManifest],
        planned: TableManifest,
        shards: Sequence[Shard],
        made_by: Mapping[str, Mapping[str, str]],
    ) -> "Plan":
        """Look at what is there; raises InputError on what was made from something else."""
        plan = cls(session, planned, tuple(shards), made_by, {}, {})
        old = {} if session.mode == "overwrite" else plan.done(session.place)
        if session.mode == "resume":
            plan.check(old)
            return replace(plan, old=old)
        plan.check_others(old)
        kept = {at: says for at, says in old.items() if plan.is_current(at, says)}
        kept = {at: says for at, says in kept.items() if not has_failed(says["statuses"])}
        new = {at: s for at, s in plan.done(session.output).items() if plan.is_current(at, s)}
        return replace(plan, old=kept, new=new)

    def done(self, output: Output) -> dict[Place, Says]:
        """What marks a shard as done for a network of this run, where all of its files are."""
        held = held_files(output.path)
        at = [
            (network, shard.name)
            for network in self.made_by
            for shard in self.shards
            if held.issuperset(files(self.planned, network, shard.name))
        ]
        there = found_files(f"{output.path}/shards", ".json")
        listed = [there.get(f"{network}/{shard}.json") for network, shard in at]
        found = at_once(
            lambda found: read_marker(output, found.path, found) if found else None, listed
        )
        return {place: says for place, says in zip(at, found, strict=True) if says}

    def is_current(self, at: Place, says: Says) -> bool:
        """Whether this was made from what is there now."""
        made_by, identity = self.made_by[at[0]], self._identities[at[1]]
        return (
            says.get("made_by") == dict(made_by)
            and says.get("input") == identity
            and says.get("records") == self.planned.shards[at[1]]
        )

    def check(self, found: Mapping[Place, Says]) -> None:
        """Raise InputError if something was made differently, or a shard has changed since."""
        root = self.session.place.root
        for at, says in found.items():
            path = f"{root}/{marker_path(*at)}"
            check_made_by(path, says["made_by"], self.made_by[at[0]])
            if not self.is_current(at, says):
                identity, count = self._identities[at[1]], self.planned.shards[at[1]]
                raise InputError(
                    f"{path}: {changed(says.get('input'), identity, says.get('records'), count)}. "
                    "Extract changed shards again with --mode retry-failed, all with --mode "
                    "overwrite, or choose another --output."
                )

    def check_others(self, found: Mapping[Place, Says]) -> None:
        """Raise InputError if a shard that changed would keep the old answers of other networks."""
        others = self.planned.networks.keys() - self.made_by.keys()
        for at, says in found.items():
            if others and says.get("input") != self._identities[at[1]]:
                raise InputError(
                    f"shard {at[1]!r} has changed, and network {min(others)!r} of the table is not "
                    "in the networks file, so it would keep its answers for what the shard was; "
                    "give all networks of the table, or choose another --output"
                )

    @property
    def _identities(self) -> dict[str, str]:
        return {shard.name: shard.identity for shard in self.shards}

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that have something to do."""
        return tuple(network for network in self.made_by if self._lacking(network))

    @property
    def to_do(self) -> tuple[Shard, ...]:
        """The shards that some network lacks."""
        lacking = {name for network in self.made_by for name in self._lacking(network)}
        return tuple(shard for shard in self.shards if shard.name in lacking)

    def _lacking(self, network: str) -> set[str]:
        done = self.old.keys() | self.new.keys()
        return {shard.name for shard in self.shards if (network, shard.name) not in done}

    def _made(self) -> dict[Place, Says]:
        """What marks shards as done where this run writes."""
        found = self.done(self.session.output)
        return {at: says for at, says in found.items() if self.is_current(at, says)}

    def markers(self) -> dict[Place, Says]:
        """What marks the shards of this run by now, those made again before those that were."""
        return {**self.old, **self._made()}

    def made_now(self) -> list[Says]:
        """What marks the shards that were done since this plan was made."""
        before = {**self.old, **self.new}
        return [says for at, says in self._made().items() if before.get(at) != says]

    def publish(self) -> None:
        """Make what is done the result."""
        made = self._made()
        names = {path for says in made.values() for path in says["files"]}
        manifest = self._manifest({**self.old, **made}, made)
        self.session.publish(manifest, names | {marker_path(*at) for at in made})

    def _manifest(self, markers: Mapping[Place, Says], made: Mapping[Place, Says]) -> TableManifest:
        """The manifest of the table, with what is known of each file."""
        known = dict(self.planned.files)
        inputs, shards = dict(self.planned.inputs), dict(self.planned.shards)
        for (_, shard), says in markers.items():
            known |= {path: WrittenFile(**file) for path, file in says["files"].items()}
            inputs[shard], shards[shard] = says["input"], says["records"]
        known |= marker_sums(self.session.output, [marker_path(*at) for at in made])
        stale = [marker_path(*at) for at in markers if at not in made]
        known |= marker_sums(self.session.place, stale)
        return replace(
            self.planned, shards=shards, inputs=inputs, files=dict(sorted(known.items()))
        )


def by_shard(markers: Iterable[Says]) -> list[Says]:
    """The statistics of each shard: those of the network that rejects the most of its records.

    `unlabelled` is the most over the networks. Where one network accounts for fewer or more records
    than another, that one's statistics stand for the shard, so that it shows.
    """
    shards: dict[str, Says] = {}
    for says in markers:
        known = shards.setdefault(says["shard"], says)
        unlabelled = max(known["unlabelled"], says["unlabelled"])
        worse = says if _badness(says) > _badness(known) else known
        shards[says["shard"]] = {**worse, "unlabelled": unlabelled}
    return list(shards.values())


def _badness(says: Says) -> tuple[bool, int]:
    seen = sum(says["statuses"].values())
    return seen != says["records"], seen - says["statuses"].get(OK, 0)
