"""CVAT: the annotations of its format "CVAT for images 1.1", in which a tag is the label of an image.

Format: https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat. A document with a DOCTYPE is refused, so there
are no entities to expand, and nothing outside the file is read.
"""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree
from xml.parsers import expat

from tapetum.data.label_formats.entries import Entry, Item, as_label, as_name, no_field

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML cannot hold."""
_SHAPES = {"box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton", "track"}


class _Reader:
    """Collects the tags of images while expat goes through a document; shapes are passed over."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.has_shapes = False
        self._image: str | None = None
        self._is_first = True
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    @property
    def _place(self) -> str:
        return f"line {self._parser.CurrentLineNumber}"

    def parse(self, content: bytes) -> None:
        try:
            self._parser.Parse(content, True)
        except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that nobody knows
            raise ValueError(f"{self._place}: it is no XML ({error}): export the file again") from None

    def _doctype(self, *_: object) -> None:
        raise ValueError(f"{self._place}: it has a DOCTYPE, which CVAT does not write: delete it")

    def _start(self, kind: str, attributes: dict[str, str]) -> None:
        if self._is_first and kind != "annotations":
            raise ValueError(f"{self._place}: it begins with <{kind[:40]}>: export it as 'CVAT for images 1.1'")
        self._is_first = False
        if kind == "image":
            self._image = as_name(attributes.get("name"), self._place)
        elif kind == "tag" and self._image is not None:
            self.entries.append(Entry(self._place, self._image, as_label(attributes.get("label"), self._place), "name"))
        self.has_shapes |= kind in _SHAPES

    def _end(self, kind: str) -> None:
        if kind == "image":
            self._image = None


def read(content: bytes, field: str | None) -> Iterator[Entry]:
    """Yield the tags of images.

    Raises:
        ValueError: the file is no XML, has a DOCTYPE, is no such export, or holds shapes but no tag; names the line.
    """
    no_field(field)
    reader = _Reader()
    reader.parse(content)
    if reader.has_shapes and not reader.entries:
        raise ValueError("its images have shapes but no tags: label images as a whole, by tags")
    yield from reader.entries


def write(items: Sequence[Item], classes: Sequence[str], folder: str) -> str:
    """Make the annotations of all images; those without a label have no tag.

    Raises:
        ValueError: XML cannot hold a name; says which.
    """
    for text in (*classes, *(item.name for item in items)):
        if _UNFIT.search(text):
            raise ValueError(f"XML cannot hold the name {text!r}: rename it")
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for key, value in (("name", folder), ("size", str(len(items))), ("mode", "annotation")):
        ElementTree.SubElement(task, key).text = value
    labels = ElementTree.SubElement(task, "labels")
    for name in classes:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "tag"
        ElementTree.SubElement(label, "attributes")
    for number, item in enumerate(items):
        size = {} if item.size is None else {"width": str(item.size[0]), "height": str(item.size[1])}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": item.name, **size})
        if item.label is not None:
            ElementTree.SubElement(image, "tag", label=item.label, source="manual")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
