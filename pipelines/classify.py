"""adalabel classify: label shards of images, each image leaving the networks as early as it can."""

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apache_beam.io.filesystems import FileSystems

from pipelines.options import RunOptions
from pipelines.run_shards import count_all, run_shards
from pipelines.words import listed
from policy.bundle import Bundle, Evidence, read_bundle
from policy.errors import InputError
from policy.rows import NONFINITE, OK
from policy.schema import parse_json
from transforms.commit import existing, write_once
from transforms.files import read_bytes
from transforms.label import Label, LabelOptions, check_fits, load_for_policy
from transforms.networks_file import read_networks
from transforms.shards import Shard, match_shards

_LOG = logging.getLogger("adalabel")

RECEIPT = "_receipt.json"
RUN = "_run.json"


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(RunOptions):
    """Label shards with a policy, running only the stages it asks for."""

    networks: str
    """The networks file (TOML); networks that the policy uses must be those it was fitted for."""
    policy: str
    """The policy's folder, made by `adalabel fit`."""
    input: tuple[str, ...]
    """Shards: paths, globs in quotes, or list files ending in .txt."""
    output: str
    """Folder of the labels; shards already done there are skipped."""
    topk: int = 5
    """Classes and probabilities written for every image; for one labelled by an average, at most as
    many as the policy averages (five, where there are more than a hundred classes)."""

    def __post_init__(self) -> None:
        """Refuse rows without a class."""
        super().__post_init__()
        if self.topk < 1:
            raise InputError(f"--topk {self.topk}: wanted at least 1")


@dataclass(frozen=True)
class ClassifyReceipt:
    """What was promised and what came of it.

    `statuses` counts rows by status, `exits` the labelled images by the answer that labelled them.
    `cost` is the mean per image that networks ran on, in `unit`; `speedup` compares it with
    `full_cost`, that of `full` alone, and is None where nothing was run.
    `newly_labelled` counts the records of this run, `seconds` is all of its time with start-up, and
    `images_per_second` is the rate from the first shard's start to the last one's end.
    """

    output: str
    shards: int
    records: int
    statuses: dict[str, int]
    exits: dict[str, int]
    unit: str
    cost: float
    full: str
    full_cost: float
    speedup: float | None
    newly_labelled: int
    seconds: float
    images_per_second: float
    promise: Evidence | None

    def text(self) -> str:
        """For people."""
        rejected = listed({status: n for status, n in self.statuses.items() if status != OK})
        this_run = "nothing to do, all was done before"
        if self.newly_labelled:
            this_run = (
                f"{self.newly_labelled} records in {self.seconds:.1f} s with start-up, "
                f"{self.images_per_second:.1f} images/s while labelling"
            )
        lines = [
            (
                f"{self.output}: {self.records} records of {self.shards} shards, "
                f"{self.statuses.get(OK, 0)} labelled, rejected: {rejected}"
            ),
            f"  exits     {listed(self.exits)}",
            (
                f"  realised  {self.cost:.4g} {self.unit} per image by calibrated costs; always "
                f"{self.full} {self.full_cost:.4g}"
                + (f", {self.speedup:.2f}x as much" if self.speedup else "")
            ),
            f"  this run  {this_run}",
        ]
        if self.promise:
            p = self.promise
            lines.insert(
                2,
                f"  expected  {p.cost:.4g} {self.unit} per image, {p.metric} {p.objective} "
                f"{p.regret:.4f} (asked: {p.promise}; seen on {p.parts[p.measured_on]} images not "
                "fitted on)",
            )
        return "\n".join(lines)


def run(options: ClassifyOptions, beam_args: Sequence[str]) -> ClassifyReceipt:
    """Label what is not labelled yet, then write the receipt."""
    networks, bundle = read_networks(options.networks), read_bundle(options.policy)
    shards = match_shards(options.input)
    check_fits(bundle, load_for_policy(networks, bundle, options.worker))
    records = count_all(shards)
    fingerprint = f"{bundle.digest}-top{options.topk}"
    _claim(options.output, fingerprint)
    done = {s["shard"] for s in _statistics(options.output, shards)}
    todo = {shard: records[shard.name] for shard in shards if shard.name not in done}
    if done:
        _LOG.info("%d shards were done before and are skipped", len(done))
    start = time.monotonic()
    if todo:
        wanted = LabelOptions(options.output, options.topk, fingerprint)
        label = Label(networks, bundle, wanted, options.worker)
        run_shards(label, todo, (options.output, ".json"), beam_args)
    seconds = time.monotonic() - start
    statistics = _statistics(options.output, shards)
    _check_complete(statistics, records)
    receipt = _receipt(options.output, bundle, statistics, done, seconds)
    if todo or not FileSystems.exists(f"{options.output}/{RECEIPT}"):
        write_once(options.output, RECEIPT, json.dumps(asdict(receipt), indent=2).encode())
    return receipt


def _claim(output: str, fingerprint: str) -> None:
    """Say whose labels the folder holds; refuse one that holds another policy's."""
    path = f"{output}/{RUN}"
    if not FileSystems.exists(path):
        write_once(output, RUN, json.dumps({"fingerprint": fingerprint}).encode())
        return
    known: Any = parse_json(read_bytes(path, "what the folder says of itself"), path)
    if known.get("fingerprint") != fingerprint:
        raise InputError(
            f"{output}: holds labels of {known.get('fingerprint')} (policy and --topk), this run "
            f"is {fingerprint}; choose another --output"
        )


def _statistics(output: str, shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """The statistics of those of these shards that are done.

    Raises InputError on labels of a shard that has changed since.
    """
    done = existing(output, ".json") & existing(output, ".parquet")
    found = []
    for shard in shards:
        if shard.name in done:
            path = f"{output}/{shard.name}.json"
            statistics: Any = parse_json(read_bytes(path, "a shard's statistics"), path)
            if statistics.get("input") != shard.identity:
                raise InputError(
                    f"{path}: was made from {statistics.get('input')}, now there is "
                    f"{shard.identity}; delete the shard's labels to make them again, or choose "
                    "another --output"
                )
            found.append(statistics)
    return found


def _check_complete(statistics: Sequence[Mapping[str, Any]], records: Mapping[str, int]) -> None:
    """Raise RuntimeError if the run left a shard or a record out: rows out = records in."""
    found = {shard["shard"]: shard["records"] for shard in statistics}
    wrong = {name: found.get(name) for name, count in records.items() if found.get(name) != count}
    if wrong:
        name, rows = next(iter(wrong.items()))
        raise RuntimeError(
            f"{len(wrong)} shards are not fully labelled, first {name!r} with {rows} rows for "
            f"{records[name]} records; run again, and report this if it stays"
        )


def _receipt(
    output: str,
    bundle: Bundle,
    statistics: Sequence[Mapping[str, Any]],
    done: set[str],
    seconds: float,
) -> ClassifyReceipt:
    graph = bundle.policy.graph
    statuses, exits = Counter[str](), Counter[str]()
    for shard in statistics:
        statuses.update(shard["statuses"])
        exits.update(shard["exits"])
    ran = statuses[OK] + statuses[NONFINITE]
    cost = sum(shard["cost"] for shard in statistics) / ran if ran else 0.0
    full = graph.cost((graph.full,))
    new = [shard for shard in statistics if shard["shard"] not in done]
    newly_labelled = sum(shard["records"] for shard in new)
    begun = min((shard["started"] for shard in new), default=0.0)
    busy = max((shard["finished"] for shard in new), default=0.0) - begun
    return ClassifyReceipt(
        output=output,
        shards=len(statistics),
        records=sum(shard["records"] for shard in statistics),
        statuses=dict(statuses),
        exits={answer: exits[answer] for answer in graph.answers if exits[answer]},
        unit=graph.unit,
        cost=cost,
        full=graph.full,
        full_cost=full,
        speedup=full / cost if cost else None,
        newly_labelled=newly_labelled,
        seconds=seconds,
        images_per_second=newly_labelled / busy if busy else 0.0,
        promise=bundle.evidence,
    )
