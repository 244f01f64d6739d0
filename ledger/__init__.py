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
    policy       witnesses and their quorum (c2sp.org/tlog-policy)
    witness_protocol   what a log asks a witness (c2sp.org/tlog-witness)

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
    lookup, entry_bundles         one record by its place; 256 of them as others' tools read them
    arrow                         a few typed edges of Arrow

Trust, which always comes from outside the store:

    trust, believed               the keys, witnesses and authorities of a verifier; the same after the log's rotations
    signers, passphrase           key files: plain, with a passphrase, or a program that signs
    rotation, rotating, key_intent    what a change of key says and proves; doing it; that it was begun
    compromise, continuation      what a stolen key exposes; a log that goes on from another one
    witness, witness_files        being a witness: the decisions, and its memory
    witness_client, submitter, anchoring, witness_state, witness_memory    asking witnesses, one and all, and how they are
    comparison, evidence          a store against what a witness knows; proofs that a key signed two histories
    bounded_http                  one request to a stranger, with an end to its time, size and errors
    timestamps, der, cms, tsa_client, timestamping    RFC 3161: tokens, their encoding and signature, asking for them, and when
    anchors                       cosigned and time-stamped checkpoints in a store

`FORMAT.md` is normative: it suffices to write a second verifier. `OPERATIONS.md` is for whoever runs it.
Names are imported from the module that
defines them, so that verifying loads nothing that verifying does not need.
"""

__all__: list[str] = []
