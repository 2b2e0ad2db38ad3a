"""Whether networks are the same, by their fingerprints, and what to say where they are not."""

from collections.abc import Mapping

DECODED_OTHERWISE = (
    "All fingerprints differ where the size does that JPEGs are decoded to: decode_side in the "
    "networks file says it (docs/images.md)."
)
"""What may have changed although a network's own entry is the same."""


def difference(
    made: str, wanted: Mapping[str, str], here: str, found: Mapping[str, str]
) -> str | None:
    """What the first network with another fingerprint is, or that it is missing; None: all agree.

    `made` and `here` begin the two halves of the sentence: "the policy was fitted for", "the table
    has". Whom it is told is still to be told what to do.
    """
    for name, fingerprint in wanted.items():
        ours = found.get(name)
        if ours is None:
            return (
                f"{made} network {name!r} with fingerprint {fingerprint}; {here} no such network."
            )
        if ours != fingerprint:
            return (
                f"{made} network {name!r} with fingerprint {fingerprint}; {here} {ours} (weights, "
                f"input, classes, exits or factory differ, or decode_side). {DECODED_OTHERWISE}"
            )
    return None
