#!/bin/sh
# Which rules of alerts.json hold now: trail status --json | alerts.sh
# One line each on stdout: severity, name, what it means. Exit code 0: none; 1: some; 2: a page; 3: no status could be read.
set -eu
rules=$(dirname "$0")/alerts.json
status=$(cat)
{ [ -n "$status" ] && printf '%s' "$status" | jq -e 'has("signed")' >/dev/null 2>&1; } || { echo "page status: trail status gave no JSON"; exit 3; }
worst=0 count=$(jq length "$rules") at=0
while [ "$at" -lt "$count" ]; do
    when=$(jq -r ".[$at].when" "$rules")
    if printf '%s' "$status" | jq -e "$when" >/dev/null; then
        jq -r ".[$at] | \"\(.severity) \(.name): \(.means)\"" "$rules"
        case $(jq -r ".[$at].severity" "$rules") in page) worst=2 ;; *) [ "$worst" -eq 2 ] || worst=1 ;; esac
    fi
    at=$((at + 1))
done
exit "$worst"
