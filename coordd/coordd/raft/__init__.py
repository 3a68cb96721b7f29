"""The consensus core: past events and a clock value in, what the driver must do out; no I/O, threads or clocks."""
