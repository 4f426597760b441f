"""Tests inside a whole Debian 12, with systemd, networkd, 802.1Q and netem: `make vm-test` runs them there."""
