"""Tables as benchmarks print them."""


def rows(output: str) -> list[dict[str, str]]:
    """The table that the benchmark printed, by its columns."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
