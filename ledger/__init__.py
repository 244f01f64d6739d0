"""The log itself: what makes records durable, ordered, sealed and checkable. Imports none of the rest.

Pure, bytes in and values out:

    errors       the families of errors, by who is at fault
    columns      the columns of a records file, each a projection of a record's bytes
    record       the canonical bytes of a record
    merkle       leaf and node hashes, roots, proofs (RFC 6962)
    tiles        the tree cut into tiles (c2sp.org/tlog-tiles)
    note         signed notes and their keys (c2sp.org/signed-note)
    checkpoint   signed tree heads (c2sp.org/tlog-checkpoint)
    proof        offline proofs of one record (c2sp.org/tlog-proof)

With files:

    durable      the only module that writes files, and the order of its system calls
    journal      records acknowledged and not sealed yet
    contents     sensitive and large values beside the log, and their commitments
    segment      sealed Parquet files, and the seals that commit to their bytes
    log          the order of writes, and recovery by the same path
    reader       a store as a reader sees it: only what was checked
    fsck         derives everything again from the records; shares no code with the writer

`FORMAT.md` is normative: it suffices to write a second verifier. Names are imported from the module that
defines them, so that verifying loads nothing that verifying does not need.
"""

__all__: list[str] = []
