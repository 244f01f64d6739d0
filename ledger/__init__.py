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

    durable                       the only module that writes files of a store, and the order of its system calls
    layout, settings, keys        where things lie; trail.toml; keys, pins and the last-signed state outside the store
    journal, contents, segment    frames not sealed yet; values beside the log; sealed Parquet and its seals
    tree, seals                   tiles on disk; which sealed files are the store
    log, submission, space        the order of writes; what it takes and gives; whether there is room
    sealing, sealer               from journal to Parquet, and small segments into larger ones
    recovery, duplicates          what a start finds; requests that come twice
    history                       older checkpoints, one file a day
    writer                        a store open for writing
    reader                        a store as a reader sees it: only what was checked
    fsck, fsck_*, sequences       `verify`: derives everything again from the records; shares no code with the writer
    arrow                         a few typed edges of Arrow

`FORMAT.md` is normative: it suffices to write a second verifier. Names are imported from the module that
defines them, so that verifying loads nothing that verifying does not need.
"""

__all__: list[str] = []
