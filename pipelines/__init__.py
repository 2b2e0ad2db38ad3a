"""The commands: each file has a frozen dataclass of options and `run(options) -> receipt`."""
