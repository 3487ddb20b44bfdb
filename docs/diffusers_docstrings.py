# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A griffe extension: docstrings in Diffusers' format become Markdown that looks like Diffusers' own reference."""

import ast
import inspect
import re

import griffe


SECTION = re.compile(r"^(Args|Parameters|Attributes|Returns|Raises|Yields|Examples?):$")
# `name (`type`, *optional*):`, `**kwargs:`, `name, another:` or `ValueError:`, with what follows on the same line.
ENTRY = re.compile(r"^`?(?P<name>\*{0,2}\w+(?:, \w+)*)`?(?: \((?P<type>.+?)\))?:(?: (?P<text>.*))?$")
# [`Name`], [`~Owner.name`] (shown as `name`) and [`shown`](`Owner.name`).
REFERENCE = re.compile(r"\[`(?P<short>~?)(?P<name>[\w.]+)`\](?:\(`(?P<target>[\w.]+)`\))?")

logger = griffe.get_logger(__name__)


class DiffusersDocstrings(griffe.Extension):
    """
    Rewrites every docstring of the package, and makes names known that only exist at run time: those that a module
    loads when they are first used (its `_MODULES`), and the pipelines, which lie in a folder beside the package.
    """

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs) -> None:
        if pkg.name != "diffscm_diffusers":
            return
        pkg.set_member("pipelines", loader.load("pipelines"))
        objects = list(walk(pkg))
        for module in objects:
            if module.is_module and "_MODULES" in module.members:
                for name, place in ast.literal_eval(str(module["_MODULES"].value)).items():
                    if place.startswith("."):
                        module.set_member(name, griffe.Alias(name, f"{module.path}{place}.{name}"))
        self.paths = {}
        for obj in objects:
            # A function goes before the module of its name.
            path = f"{obj.path}.{obj.name}" if obj.is_module and obj.name in obj.members else obj.path
            for name in (obj.name, obj.path, f"{obj.parent.name}.{obj.name}" if obj.parent is not None else obj.path):
                self.paths.setdefault(name, path)
        for obj in objects:
            if obj.docstring is not None:
                text = with_example(obj, inspect.cleandoc(obj.docstring.value))
                text = re.sub(r", \\\n\s+", ", ", text)  # Names of arguments that go on in the next line.
                check_arguments(obj, text)
                obj.docstring.value = REFERENCE.sub(lambda match, obj=obj: self.link(match, obj), markdown(text))

    def link(self, match: re.Match, obj: griffe.Object) -> str:
        """[`Name`] as a link to where the reference has it, and as code where it is not part of the reference."""
        name = match["target"] or match["name"]
        shown = match["name"].rpartition(".")[2] if match["short"] else match["name"]
        owner = obj if obj.is_class else obj.parent
        path = self.paths.get(f"{owner.name}.{name}" if owner is not None else name) or self.paths.get(name)
        if path is None:
            return f"`{shown}`"
        # Underscores would be read as emphasis.
        shown = shown.replace("_", "&#95;")
        return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'


def walk(obj: griffe.Object):
    """Yields an object and all that is defined inside it, imported names left out."""
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from walk(member)


def with_example(obj: griffe.Object, text: str) -> str:
    """The docstring with the example that `replace_example_docstring` puts there when the module is imported."""
    if not text.rstrip().endswith("Examples:") and "\nExamples:\n\n" not in text:
        return text
    if "EXAMPLE_DOC_STRING" not in obj.module.members or not any(
        "replace_example_docstring" in str(decorator.value) for decorator in getattr(obj, "decorators", [])
    ):
        return text
    example = inspect.cleandoc(ast.literal_eval(str(obj.module["EXAMPLE_DOC_STRING"].value)))
    return re.sub(r"^Examples:$", lambda _: example, text, count=1, flags=re.MULTILINE)


def check_arguments(obj: griffe.Object, text: str) -> None:
    """Warns of described arguments that the signature does not have."""
    function = obj if obj.is_function else obj.members.get("__init__") if obj.is_class else None
    if function is None or function.is_alias:
        return
    known = {parameter.name for parameter in function.parameters}
    section = None
    for line in text.splitlines():
        if match := SECTION.match(line):
            section = match[1]
        elif section in ("Args", "Parameters") and (match := ENTRY.match(line[4:])) and line[:4].isspace():
            for name in match["name"].lstrip("*").split(", "):
                if name not in known:
                    logger.warning("%s: `%s` is described, but is no argument", obj.path, name)


def markdown(text: str) -> str:
    """A docstring's sections as bold headings over lists: **name** (`type`) and the description."""
    lines, section, fenced, example = [], None, False, False
    for line in text.splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif not fenced and example and not line.strip():
            lines.append("```")
            example = False
        elif not fenced and not example and line.strip().startswith(">>>"):
            lines += ["", "```pycon"]
            example = True
        if match := SECTION.match(line):
            section = match[1]
            lines += ["", f"**{section}**", ""]
        elif line and not line[0].isspace():
            section = None
            lines.append(line)
        elif section in (None, "Example", "Examples"):
            lines.append(line[4:] if section else line)
        else:
            lines += entry(line[4:], section)
    if example:
        lines.append("```")
    return "\n".join(lines)


def entry(line: str, section: str) -> list[str]:
    """One line of a section: the head of a list's item, or more of the item before."""
    match = ENTRY.match(line)
    if section in ("Returns", "Yields"):
        return [line]
    if match is None:
        return [line if line[:1].isspace() or not line else f"    {line}"]
    kind = f" ({match['type']})" if match["type"] else ""
    name = match["name"].replace("*", r"\*")
    return [f"-   **{name}**{kind}: {match['text'] or ''}".rstrip()]
