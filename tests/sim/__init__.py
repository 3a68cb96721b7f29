"""The deterministic simulator: one seed, one run, byte for byte.

    python -m tests.sim --seeds 1..200 --seconds 20      run seeds; a failing one prints the line that replays it
    python -m tests.sim --next 500 --seconds 60 --jobs 2 --results docs/simulator.tsv      seeds never run before
    python -m tests.sim --seeds 7 --trace trace.txt      one run, told in full
    python -m tests.sim --seeds 7 --paranoid             messages as bytes, every invariant from scratch after each step
    python -m tests.sim.planted [NAME]                   which seed or test catches each planted bug? Writes planted.tsv
    python -m tests.sim.planted --check                  do they still?

Shipped code that runs in it: core, node, API, proposals, reads, watches, the leader's duties, snapshots, upkeep, and on
real files state, log store with its high-water file, snapshot store. Virtual: time (`clock`), links (`network`,
`partitions`), the threads of log writer and helper (`writer`, `helper`), how a disk behaves (`condition`) and what a power
cut leaves on it (`disk`, `tearing`).

    world        one run: cluster, clients, two phases         server        what the daemon's loop is, on virtual time
    faults       what goes wrong, and when                     membership    the operator
    workload     clients and their mix; what they do with      keys, locking, instances
    asking       how they ask, repeat and number               attached      a client that clings to one server
    watcher      a subscription                                history, linearizability    judge what clients were told
    oracle       the committed log, applied by a plain model: what every answer must have been
    ledger       all that an all-seeing observer knows         invariants    what must hold after each step
    paranoid     the same, from scratch                        summary, trace, run    what is told of a run
    bugs         bugs to plant, by `mutation`                  planted       what catches them
    campaign     the book of long series                       children      runs in processes of their own

Disks of a fixed minority, drawn once, may also flip bits, be full or fail; their servers refuse to start, fetch what they
lost or are replaced, but never forget in silence. Nothing else in the world may notice.

Everything random comes from the tree in `chance`; nothing here reads a clock, but to say how fast a run was.
"""
