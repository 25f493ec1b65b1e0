"""Inference of local transformer models by ONNX Runtime and `tokenizers`, without torch; shared by embed and rerank."""
