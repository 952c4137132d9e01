"""An AWS account on a laptop: moto for the control plane, real processes for the data plane. See README.md."""
