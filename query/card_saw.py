"""What the agent saw: the sources its run had read, the messages it was given, and where the words of the change stand.

That a source contains the words of a change is textual provenance: it says where they could come from, never that the
model took them from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from query.diffs import new_words, words
from query.evidence import ARGUMENTS, DIFF, DOCUMENTS, INPUT, INSTRUCTIONS, MEMORIES, RESULT, Evidence, when
from query.part import Part, part
from query.values import Value, as_text, parsed

MAX_CONTEXTS: Final = 50
"""The most sources a card lists, the latest before the action."""
MAX_WORDS: Final = 200
"""The most words of a change that are looked for."""
_NAMED: Final = 3
_QUOTE: Final = 200
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_EMIT: Final = "emit gen_ai.retrieval.documents or trail.context.ids, and switch the capture of message contents on"


@dataclass(frozen=True, slots=True)
class Passage:
    """A text the agent could read before it acted."""

    source: str
    id: str | None
    index: int
    text: str


def saw(evidence: Evidence) -> Part:
    """The sources and messages of the run before the action."""
    contexts = _contexts(evidence)
    messages = _messages(evidence)
    provenance = _provenance(evidence)
    listed = contexts[-MAX_CONTEXTS:]
    named: Part = {"contexts": listed, "messages": messages, "provenance": provenance}
    records = [context["record"] for context in listed] + [message["record"] for message in messages]
    if provenance is not None:
        records.append(provenance["record"])
    if not contexts and not messages:
        why = f"neither sources nor messages were recorded in this run before the action: {_EMIT}"
        return part("unknown", "not known", [], why, **named)
    text = ", ".join(filter(None, [_sources(contexts, evidence.unseen), _said(messages), _stands(provenance)]))
    unread = [f"{message['field']} of record {message['record']}: {message['why']}" for message in messages if message["why"]]
    unread += [f"{context['id']}: {context['why']}" for context in listed if context["why"]]
    if unread:
        return part("partly", text, records, f"not readable: {'; '.join(unread[:_NAMED])}", **named)
    if not messages:
        return part("partly", text, records, f"the messages to the model were not recorded: {_EMIT}", **named)
    return part("answered", text, records, **named)


def _contexts(evidence: Evidence) -> list[dict[str, Any]]:
    """The sources in the order in which they were first read, each once."""
    found: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    rows = sorted((*evidence.before, *evidence.own), key=lambda row: (when(row), row["index"]))
    for row in rows:
        held = [value for value in evidence.values.get(row["index"], ()) if value.field in (DOCUMENTS, MEMORIES)]
        state = held[0].state if held else None
        for context in row["contexts"] or ():
            key = (context["source"], context["id"])
            if key in found:
                continue
            found[key] = {
                "source": context["source"],
                "id": context["id"],
                "record": row["index"],
                "time": row["time"],
                "state": state,
                "why": held[0].why if held else "",
            }
    return list(found.values())


def _messages(evidence: Evidence) -> list[dict[str, Any]]:
    """The instructions and the latest messages before the action: each call repeats the conversation so far."""
    latest: dict[str, Value] = {}
    for row in evidence.before:
        for value in evidence.values.get(row["index"], ()):
            if value.field in (INPUT, INSTRUCTIONS):
                latest[value.field] = value
    return [
        {
            "field": value.field,
            "record": value.index,
            "state": value.state,
            "bytes": value.size_bytes,
            "count": _count(value),
            "why": value.why,
        }
        for value in latest.values()
    ]


def _count(value: Value) -> int | None:
    """How many messages a value holds, where it says."""
    if value.text is None:
        return None
    messages = parsed(value.text)
    return len(messages) if isinstance(messages, list) else 1


def _provenance(evidence: Evidence) -> dict[str, Any] | None:
    """The passage that holds most of the change's new words, the earliest of several; None where none holds any."""
    wanted = _wanted(evidence)
    if not wanted:
        return None
    best: tuple[int, Passage, list[str]] | None = None
    for passage in _passages(evidence):
        there = set(words(passage.text.casefold()))
        held = [word for word in wanted if word.casefold() in there]
        if held and (best is None or len(held) > best[0]):
            best = (len(held), passage, held)
    if best is None:
        return None
    _, passage, held = best
    return {
        "kind": "textual",
        "source": passage.source,
        "id": passage.id,
        "record": passage.index,
        "words": held,
        "quote": _quote(passage.text, held),
    }


def _wanted(evidence: Evidence) -> list[str]:
    diff, arguments = evidence.value(DIFF), evidence.value(ARGUMENTS)
    if diff is not None and diff.text is not None:
        return new_words(diff.text)[:MAX_WORDS]
    if arguments is not None and arguments.text is not None:
        return list(dict.fromkeys(words(arguments.text)))[:MAX_WORDS]
    return []


def _passages(evidence: Evidence) -> Iterator[Passage]:
    """Documents first, then results of tools, then messages: the closer to where words enter, the earlier."""
    for field, source in (
        (DOCUMENTS, "document"),
        (MEMORIES, "memory"),
        (RESULT, "tool result"),
        (INPUT, "messages"),
    ):
        for row in evidence.before:
            for value in evidence.values.get(row["index"], ()):
                if value.field == field and value.text is not None:
                    yield from _split(value, source, row)


def _split(value: Value, source: str, row: dict[str, Any]) -> Iterator[Passage]:
    """Documents one by one where they have ids, anything else as a whole."""
    items = parsed(value.text or "")
    if value.field in (DOCUMENTS, MEMORIES) and isinstance(items, list):
        named = {context["id"]: context["source"] for context in row["contexts"] or ()}
        for item in items:
            name = str(item["id"]) if isinstance(item, dict) and "id" in item else None
            yield Passage(named.get(name) or source, name, value.index, as_text(_texts(item)))
        return
    yield Passage(source, row["tool"] if value.field == RESULT else None, value.index, as_text(_texts(items)))


def _texts(item: Any) -> str:
    """All text inside a value, without its keys."""
    match item:
        case str():
            return item
        case dict():
            return "\n".join(filter(None, (_texts(inner) for inner in item.values())))
        case list():
            return "\n".join(filter(None, (_texts(inner) for inner in item)))
        case None | bool():
            return ""
        case _:
            return str(item)


def _quote(text: str, held: list[str]) -> str:
    """The sentence with most of the words, cut to a line."""
    folded = {word.casefold() for word in held}
    sentence = max(_SENTENCE.split(text), key=lambda part: len(folded.intersection(words(part.casefold()))))
    line = " ".join(sentence.split())
    return line if len(line) <= _QUOTE else line[: _QUOTE - 1] + "…"


def _sources(contexts: list[dict[str, Any]], unseen: int) -> str:
    if not contexts:
        return "no sources recorded"
    names = ", ".join(f"{context['source'] or 'source'} {context['id']}" for context in contexts[-_NAMED:])
    more = f" and {len(contexts) - _NAMED} earlier" if len(contexts) > _NAMED else ""
    beyond = f" ({unseen} earlier records of the run were not looked at)" if unseen else ""
    return f"{len(contexts)} source{'s' if len(contexts) > 1 else ''}: {names}{more}{beyond}"


def _said(messages: list[dict[str, Any]]) -> str:
    parts = []
    for message in messages:
        if message["field"] == INPUT:
            count = message["count"]
            parts.append(f"{count if count is not None else 'unreadable'} message{'' if count == 1 else 's'}")
        else:
            parts.append("its instructions")
    return ", ".join(parts)


def _stands(provenance: dict[str, Any] | None) -> str:
    if provenance is None:
        return ""
    shown = ", ".join(f'"{word}"' for word in provenance["words"][:_NAMED])
    place = f"{provenance['source']} {provenance['id']}" if provenance["id"] else provenance["source"]
    return f'words of the change ({shown}) stand in {place} (textual match): "{provenance["quote"]}"'
