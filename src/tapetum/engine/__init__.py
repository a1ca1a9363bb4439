"""The training engine: devices, the loop, checkpoints and what observes them. It knows no method and no backbone."""
