"""Text embedding on this machine, on ONNX Runtime, OpenVINO or torch."""
