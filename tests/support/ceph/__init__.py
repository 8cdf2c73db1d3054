"""A Ceph of one node for the tests, from Debian's packages: `tree` gets them, `cluster` runs them."""
