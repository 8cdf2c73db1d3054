"""Linux only, root only: the calls that btrfs needs and Python's standard library lacks."""
