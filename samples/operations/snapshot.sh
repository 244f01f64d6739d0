#!/bin/sh
# A consistent copy of a trail store beside it, while the server writes: snapshot.sh STORE SNAPSHOT
#
# Both on one filesystem: sealed files and tiles are never changed in place, so hard links to them are a copy that costs no space
# and takes a moment; the rest is small and is copied. Copy SNAPSHOT elsewhere with whatever you like, then remove it.
# Run it as the account that owns the store. Exit code 0: the snapshot is whole. 1: it is not, and is gone again.
set -eu
[ $# -eq 2 ] || { echo "usage: snapshot.sh STORE SNAPSHOT" >&2; exit 2; }
store=$1 made=$2 making=$2.making
[ -f "$store/trail.toml" ] || { echo "snapshot.sh: there is no store at $store" >&2; exit 2; }
[ ! -e "$made" ] || { echo "snapshot.sh: $made is there already" >&2; exit 2; }
umask 077

# The order is what makes it a store. Each step must not be older than the one before it.
take() {
    mkdir "$making" "$making/held" &&
    cp -a "$store/checkpoints" "$making/" &&                     # nothing in it may cover more than the checkpoint below
    journal=$(ls "$store/journal") &&
    cp -a "$store/checkpoint" "$making/" &&                      # from here on the copy is the log of this size
    cp -al "$store"/journal/. "$making/held/" &&                 # a link keeps what the server seals, and then removes, from now on
    is_held $journal &&
    cp -al "$store/records" "$store/contents" "$making/" &&      # what had left the journal is here
    cp -al "$store/tile" "$store/quarantine" "$making/" &&
    cp -a "$store/trail.toml" "$making/" &&
    { [ ! -e "$store/tlog-policy" ] || cp -a "$store/tlog-policy" "$making/"; } &&
    cp -a "$making/held" "$making/journal" &&                    # bytes of its own: the server goes on writing to the linked ones
    rm -r "$making/held" &&
    find "$making" -name '.*.tmp' -exec rm -f {} +               # files that were being made
}

# Journal files are sealed in their order. If all that were there before the checkpoint was copied are there still, none was sealed away
# around it, and what the checkpoint covers is either in them or in a segment.
is_held() {
    for name; do
        [ -e "$making/held/$name" ] || { echo "$name was sealed meanwhile" >&2; return 1; }
    done
}

# cp fails when a file goes while it looks, as after a merge. Then all of it is taken again.
for pause in 1 1 1 1 0; do
    rm -rf "$making"
    if take 2>"$made.why"; then
        rm -f "$made.why"
        mv "$making" "$made"
        echo "$made"
        exit 0
    fi
    sleep "$pause"
done
echo "snapshot.sh: five tries failed, the last one with: $(tail -n 1 "$made.why")" >&2
rm -rf "$making" "$made.why"
exit 1
