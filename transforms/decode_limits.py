"""What an encoded image may cost; everything but the time is checked before a pixel is decoded."""

from dataclasses import dataclass

from policy.errors import InputError

MAX_IMAGE_BYTES = 64 << 20
"""Larger encoded images are rejected, unread where a container tells sizes beforehand."""


class BadImage(ValueError):  # noqa: N818 - what it is, not that it is an error, is what matters
    """An image that cannot be used: `status` is the reason, the message says more."""

    def __init__(self, status: str, message: str) -> None:
        """Give the reason (a row's status) and the explanation (its error)."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of one image; `max_ratio` is of its longer side to its shorter one.

    `seconds` are of the CPU in a thread, where they can only be looked at afterwards, and of the
    clock in a process of its own, which is then ended.
    """

    max_pixels: int = 100_000_000
    max_image_bytes: int = MAX_IMAGE_BYTES
    max_ratio: int = 200
    seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse limits that no image meets, and more bytes than the readers let through."""
        for option, found in (
            ("--max-pixels", self.max_pixels),
            ("--max-image-bytes", self.max_image_bytes),
            ("--max-image-ratio", self.max_ratio),
        ):
            if found < 1:
                raise InputError(f"{option} {found}: wanted at least 1")
        if self.max_image_bytes > MAX_IMAGE_BYTES:
            raise InputError(
                f"--max-image-bytes {self.max_image_bytes}: wanted at most {MAX_IMAGE_BYTES}, "
                "which is all that is read of an image in a shard"
            )
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"--decode-seconds {self.seconds}: wanted more than 0, and finite")

    def check_bytes(self, encoded: bytes) -> None:
        """Raise BadImage "empty" or "too_large"."""
        if not encoded:
            raise BadImage("empty", "the image has no bytes")
        if len(encoded) > self.max_image_bytes:
            message = f"{len(encoded)} bytes; at most {self.max_image_bytes} (--max-image-bytes)"
            raise BadImage("too_large", message)

    def check_size(self, width: int, height: int) -> None:
        """Raise BadImage "too_large" by what the header says."""
        size = f"{width} x {height} pixels"
        if max(width, height) > self.max_ratio * min(width, height):
            message = f"{size}; sides may differ {self.max_ratio}-fold (--max-image-ratio)"
            raise BadImage("too_large", message)
        if width * height > self.max_pixels:
            raise BadImage("too_large", f"{size}; at most {self.max_pixels} (--max-pixels)")

    def check_time(self, seconds: float) -> None:
        """Raise BadImage "timeout"."""
        if seconds > self.seconds:
            message = f"decoding took {seconds:.1f} s; at most {self.seconds:g} (--decode-seconds)"
            raise BadImage("timeout", message)


DEFAULT_LIMITS = DecodeLimits()
