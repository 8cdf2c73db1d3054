"""A Ceph of one node, from Debian's packages: `tree` gets them, `cluster` runs them."""
