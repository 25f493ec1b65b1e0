"""Options of the official adapters that are fixed here: any other value is refused with its reason."""

from __future__ import annotations

from llama_index_presets._options import Limits

__all__ = ["FIXED_LIMITS", "LANCEDB_LIMITS", "PINECONE_LIMITS", "POSTGRES_LIMITS", "WEAVIATE_LIMITS"]

_SPARSE = "Sparse vectors are not supported. Put a BM25Index beside the store."
_CONNECT = "WeaviateVectorStore.from_url('weaviate://HOST/COLLECTION', api_key=…) opens a client."

FIXED_LIMITS: Limits = {
    "stores_text": ((None, True), "the store keeps the text of its nodes."),
    "is_embedding_query": ((None, True), "a query brings its embedding, or its words."),
}
"""Fields of every LlamaIndex vector store."""

POSTGRES_LIMITS: Limits = {
    **FIXED_LIMITS,
    "customize_query_fn": ((None,), "the statement is another one. Use filters, or read the table with SQL."),
}

LANCEDB_LIMITS: Limits = {
    **FIXED_LIMITS,
    "api_key": ((None,), "it belongs to LanceDB Cloud, which is not supported. Leave it out."),
    "region": ((None,), "it belongs to LanceDB Cloud, which is not supported. Leave it out."),
    "reranker": ((None,), "fusion and MMR are done here. Put a CrossEncoderRerank behind the retriever."),
    "mode": (("create", "append", "overwrite"), "choose 'create', 'append' or 'overwrite'."),
    "query_type": ((None, "vector", "fts", "hybrid"), "choose 'vector', 'fts' or 'hybrid'."),
}

PINECONE_LIMITS: Limits = {
    **FIXED_LIMITS,
    "insert_kwargs": ((None, {}), "requests are made here. Set namespace and batch_size."),
    "add_sparse_vector": ((None, False), _SPARSE),
    "sparse_embedding_model": ((None,), _SPARSE),
    "tokenizer": ((None,), _SPARSE),
    "default_empty_query_vector": ((None,), _SPARSE),
    "text_key": ((None, "text"), "the text is kept under 'text'."),
    "remove_text_from_metadata": ((None, False), "the record is where the text is kept."),
}

WEAVIATE_LIMITS: Limits = {
    **FIXED_LIMITS,
    "text_key": ((None, "text"), "the text is kept under 'text'."),
    "class_prefix": ((None,), "give the whole name, index_name='PREFIX_Node'."),
    "url": ((None,), _CONNECT),
    "auth_config": ((None, {}), _CONNECT),
    "client_kwargs": ((None, {}), _CONNECT),
}
