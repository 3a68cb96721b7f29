"""The deterministic simulator: virtual network, disks and clocks; one seed, one run."""
