"""Context expansion of hits: a sentence with its neighbours, or the parent of chunks that were hit.

What is searched may be small and what is read larger. Both work on copies: the hits given, and their nodes, are left
as they were.
"""

from __future__ import annotations

from collections import Counter

from llama_index.core.postprocessor import MetadataReplacementPostProcessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import Field

from llama_index_presets._options import strict
from llama_index_presets.values import PARENT_KEYS, WINDOW_KEY

__all__ = ["ParentMerge", "SentenceWindow"]

_ID, _TEXT, _LEAVES = PARENT_KEYS


@strict()
class SentenceWindow(MetadataReplacementPostProcessor):
    """Replace each sentence by its window; a hit without one stays as it is.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> hit = NodeWithScore(node=TextNode(text="B.", metadata={"window": "A. B. C."}), score=0.5)
        >>> [found.node.get_content() for found in SentenceWindow().postprocess_nodes([hit])], hit.node.text
        (['A. B. C.'], 'B.')
    """

    def __init__(self, target_metadata_key: str = WINDOW_KEY) -> None:
        super().__init__(target_metadata_key)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "SentenceWindow"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        copies = [hit.model_copy(update={"node": hit.node.model_copy(deep=True)}) for hit in nodes]
        found: list[NodeWithScore] = super()._postprocess_nodes(copies, query_bundle)
        for hit in found:
            hit.node.metadata.pop(self.target_metadata_key, None)
        return found


@strict()
class ParentMerge(BaseNodePostprocessor):
    """Replace the parts of a chunk by the chunk, where more than ``ratio`` of them were hit.

    As `AutoMergingRetriever` does, with two differences: the chunk's text travels with its parts, so that no second
    store can fall out of step; and the chunk takes the place, score and id of its best part, not a mean that would
    drop it behind parts that were found alone.

    Args:
        ratio: Share of a chunk's parts above which it replaces them, 0 to 1.
    """

    ratio: float = Field(default=0.5, ge=0, le=1)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ParentMerge"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        found = Counter(hit.node.metadata.get(_ID) for hit in nodes)
        merged: dict[str, NodeWithScore] = {}
        for hit in nodes:
            parent = hit.node.metadata.get(_ID)
            if parent is None or found[parent] <= self.ratio * int(hit.node.metadata[_LEAVES]):
                merged[hit.node.node_id] = _without_parent(hit)
            else:
                merged.setdefault(str(parent), _whole(hit))
        return list(merged.values())


def _whole(hit: NodeWithScore) -> NodeWithScore:
    whole = _without_parent(hit)
    whole.node.set_content(hit.node.metadata[_TEXT])
    return whole


def _without_parent(hit: NodeWithScore) -> NodeWithScore:
    copy = hit.model_copy(update={"node": hit.node.model_copy(deep=True)})
    for key in PARENT_KEYS:
        copy.node.metadata.pop(key, None)
    return copy
