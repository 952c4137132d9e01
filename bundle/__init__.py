"""Builds the two packages that Terraform uploads, the same bytes on every machine."""
