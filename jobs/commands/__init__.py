"""The commands of `heatline`, one module each; `jobs.cli` names them."""
