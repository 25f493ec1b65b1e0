"""BM25 without a database: text to tokens, tokens to postings, postings to scores.

Pure: numpy and PyStemmer only. `retrieve/bm25/index.py` adds files and LlamaIndex; a store may use the parts
directly.

    Analyzer(language="german").tokens("Die Übermittlung")  ->  ["ubermittl"]
    Postings().add(ids, token_lists); .search(tokens, k, allowed=mask)  ->  [(id, score), ...]
"""

from llama_index_presets.ranking.bm25.analyzer import LANGUAGES, Analyzer
from llama_index_presets.ranking.bm25.positions import FIELD_END
from llama_index_presets.ranking.bm25.postings import Postings
from llama_index_presets.ranking.bm25.query import KeywordQuery, parse_in_languages, parse_query
from llama_index_presets.ranking.bm25.view import QueryScores, View

__all__ = [
    "FIELD_END",
    "LANGUAGES",
    "Analyzer",
    "KeywordQuery",
    "Postings",
    "QueryScores",
    "View",
    "parse_in_languages",
    "parse_query",
]
