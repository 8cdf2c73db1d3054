"""Measurements, on real btrfs and on made-up histories. Nothing here is a test."""
