"""The deterministic simulator: one seed, one run, byte for byte.

    python -m tests.sim --seeds 1..200 --seconds 20      run seeds; a failing one prints the line that replays it
    python -m tests.sim --next 500 --seconds 60 --jobs 2 --results docs/simulator.tsv      seeds never run before
    python -m tests.sim --seeds 7 --trace trace.txt      one run, told in full
    python -m tests.sim --seeds 7 --paranoid             messages as bytes, every invariant from scratch after each step
    python -m tests.sim.planted [NAME]                   is each planted bug still caught, and by which seed?

Shipped code that runs in it: core, node, API, proposals, reads, watches, the leader's duties, snapshots, upkeep, and on
real files state, log store with its high-water file, snapshot store. Virtual: time (`clock`), links (`network`,
`partitions`), the threads of log writer and helper (`writer`, `helper`), how a disk behaves (`condition`) and what a power
cut leaves on it (`disk`, `tearing`).

    world       one run: cluster, clients, two phases        faults, membership    what goes wrong, and the operator
    server      what the daemon's loop is, on virtual time   workload, watcher     clients, and what they are told
    ledger      all that an all-seeing observer knows        history, linearizability    the judge of what clients were told
    invariants  what must hold after each step               paranoid              the same, from scratch
    mutation    one piece of the product's source exchanged  summary, trace, run   what is told of a run

Disks of a fixed minority, drawn once, may also flip bits, be full or fail; their servers refuse to start, fetch what they
lost or are replaced, but never forget in silence. Nothing else in the world may notice.

Everything random comes from the tree in `chance`; nothing here reads a clock, but to say how fast a run was.
"""
