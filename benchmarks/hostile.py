"""All hostile files through the product: what becomes of each, how much memory it takes, how long.

    .venv/bin/python -m benchmarks.hostile [--data ../shared/data]

Images are put into tars, a hundred to each; tars, Parquet and TFRecord files are shards as they
are. `adalabel classify` labels all of them in one run with the smallest network of the photographs,
decoding in threads and then in processes. Weights and policies are given to commands of their own.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.photographs import SMALL, write_networks
from policy.bundle import Bundle, write_bundle
from policy.rules import always
from transforms.networks_file import read_networks
from transforms.stages import Engine

HERE = Path(__file__).parent.parent
IMAGES = ("afl-gif-bmp", "afl-jpeg", "image-rs", "jpeg-decoder-crash", "pillow", "png", "png-fuzz")
KINDS = {"tar-": ".tar", "parquet-": ".parquet"}
PER_TAR = 100


def shards_of(hostile: Path, corpus: Path) -> None:
    """Write the corpus: images in tars below images/, all other containers as they are."""
    for folder in (*IMAGES, "generated/img"):
        files = sorted(path for path in (hostile / folder).rglob("*") if path.is_file())
        for first in range(0, len(files), PER_TAR):
            name = f"{folder.replace('/', '-')}-{first // PER_TAR:02d}.tar"
            (corpus / "images").mkdir(parents=True, exist_ok=True)
            with tarfile.open(corpus / "images" / name, "w") as archive:
                for number, path in enumerate(files[first : first + PER_TAR]):
                    archive.add(path, f"{number:03d}-{path.name.replace('.', '_')}.img")
    for path, extension in containers(hostile):
        place = corpus / path.parent.relative_to(hostile)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / f"{path.name.replace('.', '_')}{extension}")


def containers(hostile: Path) -> Iterator[tuple[Path, str]]:
    """Every other shard, and the extension it is read by."""
    for folder in sorted(hostile.iterdir()):
        for kind, extension in KINDS.items():
            if folder.name.startswith(kind):
                yield from ((p, extension) for p in sorted(folder.rglob("*")) if p.is_file())
    for kind, extension in (("tar", ".tar"), ("parquet", ".parquet"), ("tfrecord", ".tfrecord")):
        for path in sorted((hostile / "generated" / kind).iterdir()):
            yield path, ".tar.gz" if path.name.endswith(".gz") else extension


def adalabel(*arguments: str, seconds: int = 900) -> tuple[int, str]:
    """Run a command; its exit code and what it said."""
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", "launch.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=HERE,
        timeout=seconds,
    )
    return done.returncode, done.stdout + done.stderr


def labelled(work: Path, networks: Path, flags: tuple[str, ...]) -> None:
    """Label the corpus, and print what became of its records."""
    output = work / f"labels{len(flags)}"
    code, said = adalabel(
        *("classify", "--networks", str(networks), "--policy", str(work / "policy"), "--json"),
        *("--input", str(work / "corpus/**.tar*"), str(work / "corpus/**.parquet")),
        *(str(work / "corpus/**.tfrecord"), "--max-bad-fraction", "1", *flags),
        *("--output", str(output), "--batch-size", "16"),
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    receipt = json.loads((output / "_receipt.json").read_text())
    del receipt["account"]["errors"]
    print(
        f"\n{' '.join(flags) or 'in threads'}: exit code {code}, {receipt['shards']} shards, "
        f"{receipt['account']}, {receipt['seconds']:.0f} s, peak of a process so far {peak:.0f} MB"
    )
    print(
        f"verify: exit code {adalabel('verify', str(output))[0]}; tracebacks: "
        f"{said.count('Traceback')}\n"
    )
    found: dict[str, Counter[str]] = {}
    silent = 0
    for path in sorted(output.rglob("*.parquet")):
        folder = path.relative_to(output).parts
        name = folder[1].rpartition("-")[0] if folder[0] == "images" else "/".join(folder[:-1][:2])
        for row in pq.read_table(path, columns=["status", "error", "label"]).to_pylist():
            found.setdefault(name, Counter())[row["status"]] += 1
            silent += row["status"] != "ok" and not row["error"]
            silent += row["status"] == "ok" and row["label"] is None
    print("| folder | records by status |\n|---|---|")
    for name, statuses in found.items():
        print(f"| {name} | {', '.join(f'{n} {s}' for s, n in sorted(statuses.items()))} |")
    print(f"\nrows without a reason: {silent}")


def refused(hostile: Path, work: Path, networks: Path) -> None:
    """Give every hostile file of weights and every policy to a command; print what it says."""
    print("\n| file | exit code | said |\n|---|---|---|")
    text = networks.read_text()
    for weights in sorted((hostile / "generated/model").iterdir()):
        own = work / "own.toml"
        lines = [
            f'weights = "{weights}"' if x.startswith("weights") else x for x in text.split("\n")
        ]
        own.write_text("\n".join(lines))
        flags = ("--networks", str(own), "--policy", str(work / "policy"))
        code, said = adalabel("classify", *flags, *nowhere(work))
        print(f"| model/{weights.name} | {code} | {last(said, hostile)} |")
    for policy in sorted((hostile / "generated/policy").iterdir()):
        (work / "other").mkdir(exist_ok=True)
        shutil.copyfile(policy, work / "other" / "policy.json")
        flags = ("--networks", str(networks), "--policy", str(work / "other"))
        code, said = adalabel("classify", *flags, *nowhere(work))
        print(f"| policy/{policy.name} | {code} | {last(said, hostile)} |")


def nowhere(work: Path) -> tuple[str, ...]:
    """The rest of a command that must not get as far as labelling."""
    return ("--input", str(work / "corpus/images/*.tar"), "--output", str(work / "nowhere"))


def last(said: str, hostile: Path) -> str:
    """The last line, without the folders of this machine."""
    line = said.strip().splitlines()[-1].replace(str(hostile), "hostile")
    return line.replace("|", "\\|")[:160]


def main() -> None:
    """Run all, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data")
    data = parser.parse_args().data.absolute()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        networks = write_networks(work / "one.toml", data, (SMALL,))
        engine = Engine(read_networks(str(networks)), "cpu")
        policy = always(engine.graph, SMALL)
        write_bundle(str(work / "policy"), Bundle(policy, engine.class_names, engine.fingerprints))
        shards_of(data / "hostile", work / "corpus")
        for flags in ((), ("--isolate-decode",)):
            labelled(work, networks, flags)
        refused(data / "hostile", work, networks)


if __name__ == "__main__":
    main()
