"""How runs are started: the command line and the presets for runners."""
