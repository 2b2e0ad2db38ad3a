from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from policy.errors import InputError
from transforms.images import InputSpec
from transforms.networks_file import NetworksFile, NetworkSpec, fingerprint, read_networks

INPUT = InputSpec(resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
SPEC = NetworkSpec("small", "tiny_networks:branchy", "w.safetensors", INPUT, ("block1",), {"a": 1})

NETWORK = """
[[network]]
name = "{name}"
model = "m:f"
weights = "DEFAULT"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "networks.toml"
    path.write_text(text)
    return str(path)


def test_paths_are_relative_to_the_files_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_networks(tmp_path / "n")
    monkeypatch.chdir(tmp_path)
    networks = read_networks("n/networks.toml")
    assert networks == read_networks(str(tmp_path / "n" / "networks.toml"))
    assert networks.classes == f"{tmp_path}/n/classes.txt"
    assert networks.import_path == (str(tiny.FOLDER),)
    small, big = networks.network
    assert small.weights == f"{tmp_path}/n/small.safetensors"
    assert (small.exits, big.exits, big.kwargs) == (("block1",), (), {"width": 8})
    assert small.input == InputSpec(resize=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_built_in_names_and_urls_are_not_made_paths(tmp_path: Path) -> None:
    text = 'classes = "imagenet1k"\nimport_path = ["gs://b/code"]' + NETWORK.format(name="a")
    text += NETWORK.format(name="b").replace("DEFAULT", "gs://b/w.pt") + (
        "input = { resize = [8, 8], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }"
    )
    networks = read_networks(written(tmp_path, text))
    assert networks.classes == "imagenet1k"
    assert networks.import_path == ("gs://b/code",)
    assert [network.weights for network in networks.network] == ["DEFAULT", "gs://b/w.pt"]


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"/no/n.toml: the networks file cannot be read: "):
        read_networks("/no/n.toml")


TOP = 'classes = "imagenet1k"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = ", "not valid TOML"),
        (TOP, "network: Field required"),
        (TOP + "network = []", r"no \[\[network\]\] in the file; wanted at least one"),
        (TOP + 'colour = "red"' + NETWORK.format(name="a"), "colour: Unexpected keyword argument"),
        (NETWORK.format(name="a"), "classes: Field required"),
        (TOP + 2 * NETWORK.format(name="a"), "two networks have the same name; names are a, a"),
        (TOP + NETWORK.format(name="../a"), "name '../a': use letters, digits and _ . . -"),
        (TOP + NETWORK.format(name=""), "name '': use letters"),
        (TOP + NETWORK.format(name="a").replace("m:f", "m.f"), "'m.f': wanted module:factory"),
        (TOP + NETWORK.format(name="a").replace("m:f", "m:f()"), "wanted module:factory"),
        (TOP + NETWORK.format(name="a") + 'exits = ["x", "x"]', "a module is named twice"),
        (TOP + NETWORK.format(name="a").replace("DEFAULT", "w.pt"), "'a' has weights of its own"),
        (TOP + NETWORK.format(name="a") + "kwargs = { a = [1] }", r"network.0.kwargs.a"),
        (TOP + "decode_side = 0" + NETWORK.format(name="a"), "decode_side = 0: wanted at least 1"),
        (TOP + 'decode_side = "half"' + NETWORK.format(name="a"), "decode_side"),
        (TOP + "decode_side = true" + NETWORK.format(name="a"), "decode_side"),
        ("classes = 1979-05-27" + NETWORK.format(name="a"), "classes|date"),
        (TOP + NETWORK.format(name="a") + "kwargs = { a = nan }", "kwargs"),
        (
            TOP
            + NETWORK.format(name="a")
            + "input = { resize = 5, mean = [0, 0, 0], std = [1, 1, 1] }",
            r"n.toml: network.0.input: .*batches need crop|networks.toml: .*batches need crop",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_networks(written(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path}/networks.toml: ")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_bytes('classes = "caf\u00e9.txt"'.encode("latin-1"))
    with pytest.raises(InputError, match=r"n.toml: .*(UTF-8|utf-8)"):
        read_networks(str(tmp_path / "n.toml"))


@pytest.mark.parametrize(
    "changed",
    [
        (replace(SPEC, model="tiny_networks:opaque"), INPUT, ("cat",), "w", 8),
        (replace(SPEC, kwargs={"a": 2}), INPUT, ("cat",), "w", 8),
        (replace(SPEC, kwargs={}), INPUT, ("cat",), "w", 8),
        (replace(SPEC, exits=()), INPUT, ("cat",), "w", 8),
        (replace(SPEC, exits=("block2",)), INPUT, ("cat",), "w", 8),
        (SPEC, replace(INPUT, mean=(0.5, 0.5, 0.4)), ("cat",), "w", 8),
        (SPEC, replace(INPUT, interpolation="bicubic"), ("cat",), "w", 8),
        (SPEC, replace(INPUT, crop=8), ("cat",), "w", 8),
        (SPEC, INPUT, ("dog",), "w", 8),
        (SPEC, INPUT, ("cat", "dog"), "w", 8),
        (SPEC, INPUT, ("cat",), "v", 8),
        (SPEC, INPUT, ("cat",), "w", 9),
        (SPEC, INPUT, ("cat",), "w", None),
    ],
)
def test_the_fingerprint_changes_with_each_part(
    changed: tuple[NetworkSpec, InputSpec, tuple[str, ...], str, int | None],
) -> None:
    assert fingerprint(*changed) != fingerprint(SPEC, INPUT, ("cat",), "w", 8)


def test_the_fingerprint_depends_on_no_name_path_or_order() -> None:
    other = replace(SPEC, name="other", weights="/elsewhere/w.safetensors")
    assert fingerprint(other, INPUT, ("cat",), "w", 8) == fingerprint(SPEC, INPUT, ("cat",), "w", 8)
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert fingerprint(replace(SPEC, kwargs=one), INPUT, (), "w", 8) == fingerprint(
        replace(SPEC, kwargs=two), INPUT, (), "w", 8
    )


def test_a_networks_file_is_built_in_code_as_well() -> None:
    assert NetworksFile("imagenet1k", (SPEC,)).network == (SPEC,)
