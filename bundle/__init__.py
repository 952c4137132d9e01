"""Builds what AWS runs: the two packages that Terraform uploads, the same bytes everywhere, and the hosting image."""
