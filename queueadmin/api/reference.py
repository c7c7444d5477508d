"""Writes the OpenAPI document as Markdown, for docs/api.md."""

import json
from collections.abc import Iterator
from typing import Any

from .schema import document

_METHODS = ("get", "post", "put", "patch", "delete")


def markdown(introduction: str) -> str:
    """Return the reference: an introduction, then each call by chapter.

    Args:
        introduction: what stands before the calls.
    """
    found = document("/api/v1")
    lines = [introduction.rstrip(), ""]
    for tag in found["tags"]:
        lines += [f"## {tag['name']}", "", tag["description"], ""]
        for path, calls in found["paths"].items():
            for method in _METHODS:
                if tag["name"] in calls.get(method, {}).get("tags", ()):
                    lines += _call(method, path, calls[method], found)
    return "\n".join(lines).rstrip() + "\n"


def _call(method: str, path: str, call: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {call['summary']}", "", f"`{method.upper()} {path.removeprefix('/')}`", "")
    yield from (call["description"], "")
    rows = [*_parameters(call), *_fields(call, found)]
    if rows:
        yield from ("| field | in | type | |", "|---|---|---|---|", *rows, "")
    statuses = ", ".join(f"{code}" for code in call["responses"])
    yield from (f"Answers: {statuses}.", "")
    yield from _examples(call)


def _parameters(call: dict[str, Any]) -> Iterator[str]:
    for each in sorted(call.get("parameters", ()), key=lambda each: (each["in"], each["name"])):
        kind = _type(each["schema"])
        yield _row(each["name"], each["in"], kind, each.get("description", ""))


def _fields(call: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    content = call.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    yield from _rows(_resolved(content["schema"], found), found)


def _rows(component: dict[str, Any], found: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Describe the fields of an object, and with dots those of objects in it."""
    for name, schema in component.get("properties", {}).items():
        label = f"{prefix}{name}"
        required = " (required)" if name in component.get("required", ()) else ""
        yield _row(label + required, "body", _type(schema), schema.get("description", ""))
        for part in (schema, *schema.get("allOf", ()), *schema.get("oneOf", ())):
            if "$ref" in part:
                yield from _rows(_resolved(part, found), found, f"{label}.")


def _row(name: str, place: str, kind: str, words: str) -> str:
    label, _, required = name.partition(" ")
    return f"| `{label}`{' ' + required if required else ''} | {place} | {kind} | {words} |"


def _resolved(schema: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        component: dict[str, Any] = found["components"]["schemas"][name]
        return component
    return schema


def _type(schema: dict[str, Any]) -> str:
    if "oneOf" in schema:
        return " or ".join(_type(each) for each in schema["oneOf"])
    if "allOf" in schema:  # one reference, with a description beside it
        return " and ".join(_type(each) for each in schema["allOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1].removesuffix("Request"))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if schema.get("format") == "date-time":
        words = words.replace("string", "time")
    if "minimum" in schema and "maximum" in schema:
        words += f", {schema['minimum']:,} to {schema['maximum']:,}"
    elif "maxLength" in schema:
        words += f", at most {schema['maxLength']:,}"
    return words


def _examples(call: dict[str, Any]) -> Iterator[str]:
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {})
    for each in body.get("examples", {}).values():
        yield from _json("Request", each)
    for answer in call["responses"].values():
        content = answer.get("content", {}).get("application/json", {})
        for each in content.get("examples", {}).values():
            yield from _json("Answer", each)


def _json(kind: str, example: dict[str, Any]) -> Iterator[str]:
    text = json.dumps(example["value"], indent=2, ensure_ascii=False)
    yield from (f"{kind}, {example['summary']}:", "", "```json", text, "```", "")
