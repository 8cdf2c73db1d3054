"""What tests, demo and benchmark share: real btrfs on loop files, and histories on it."""
